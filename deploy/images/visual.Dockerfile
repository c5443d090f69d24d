# The visual service. The digest of the base is not pinned here, because no registry could be asked when this was written:
# give it with --build-arg PYTHON=python@sha256:... (docs/operations.md).
ARG PYTHON=python:3.11.13-slim-bookworm

FROM ${PYTHON} AS build
WORKDIR /build
COPY deploy/images/requirements/visual.txt requirements.txt
RUN python -m venv --without-pip /opt/venv \
 && python -m pip --python /opt/venv/bin/python install --no-cache-dir --no-deps --only-binary=:all: --require-hashes -r requirements.txt
COPY bonafide/__init__.py /app/bonafide/__init__.py
COPY bonafide/v1 /app/bonafide/v1
COPY buf /app/buf
COPY services/__init__.py /app/services/__init__.py
COPY services/common /app/services/common
COPY services/visual /app/services/visual
RUN python -m compileall -q /app

FROM ${PYTHON}
# The base brings a package installer; a service needs none.
RUN python -m pip uninstall --yes --quiet --root-user-action=ignore setuptools wheel pip
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
ENV PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
USER 10001:10001
EXPOSE 8501
ENTRYPOINT ["/opt/venv/bin/python", "-P", "-m", "services.visual"]
