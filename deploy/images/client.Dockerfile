# The command line, and the demo clip of `helm test`. The digest of the base is not pinned here, because no registry
# could be asked when this was written: give it with --build-arg PYTHON=python@sha256:... (docs/operations.md).
ARG PYTHON=python:3.11.13-slim-bookworm

FROM ${PYTHON} AS build
WORKDIR /build
COPY deploy/images/requirements/client.txt requirements.txt
RUN python -m venv --without-pip /opt/venv \
 && python -m pip --python /opt/venv/bin/python install --no-cache-dir --no-deps --only-binary=:all: --require-hashes -r requirements.txt
COPY bonafide /app/bonafide
COPY buf /app/buf
COPY services/__init__.py /app/services/__init__.py
COPY services/common /app/services/common
COPY deploy/__init__.py /app/deploy/__init__.py
COPY deploy/images/__init__.py deploy/images/first_verdict.py /app/deploy/images/
COPY deploy/local/__init__.py deploy/local/demo_clip.py deploy/local/portrait.py /app/deploy/local/
RUN python -m compileall -q /app

FROM ${PYTHON}
# The base brings a package installer; a client needs none. The demo clip speaks.
RUN python -m pip uninstall --yes --quiet --root-user-action=ignore setuptools wheel pip \
 && apt-get update \
 && apt-get install --yes --no-install-recommends flite=2.2-5 \
 && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
ENV PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
USER 10001:10001
ENTRYPOINT ["/opt/venv/bin/python", "-P", "-m", "deploy.images.first_verdict"]
