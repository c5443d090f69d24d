# NVIDIA Triton without a GPU: the server inside nvidia-pytriton, and our Python backend under the name onnxruntime.
# GPU pools use NVIDIA's own image, which must never see that backend. The digest of the base is not pinned here, because
# no registry could be asked when this was written: give it with --build-arg PYTHON=python@sha256:...
ARG PYTHON=python:3.11.13-slim-bookworm

FROM ${PYTHON} AS build
WORKDIR /build
COPY deploy/images/requirements/triton-cpu.txt requirements.txt
RUN python -m venv --without-pip /opt/venv \
 && python -m pip --python /opt/venv/bin/python install --no-cache-dir --no-deps --only-binary=:all: --require-hashes -r requirements.txt
WORKDIR /opt/venv/lib/python3.11/site-packages/pytriton/tritonserver
RUN mkdir -p /opt/bonafide/backends/python /opt/bonafide/backends/onnxruntime \
 && cp backends/python/libtriton_python.so backends/python/triton_python_backend_utils.py \
       python_backend_stubs/3.11/triton_python_backend_stub /opt/bonafide/backends/python/
COPY deploy/local/onnxruntime_backend/model.py /opt/bonafide/backends/onnxruntime/model.py

FROM ${PYTHON}
RUN python -m pip uninstall --yes --quiet --root-user-action=ignore setuptools wheel pip
COPY --from=build /opt/venv /opt/venv
COPY --from=build /opt/bonafide /opt/bonafide
# The backend's stub runs the first python3 on PATH and loads that interpreter's library.
ENV PATH=/opt/venv/bin:/opt/venv/lib/python3.11/site-packages/pytriton/tritonserver/bin:/usr/local/bin:/usr/bin:/bin \
    LD_LIBRARY_PATH=/opt/venv/lib/python3.11/site-packages/nvidia_pytriton.libs:/usr/local/lib \
    PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
EXPOSE 8001 8002
ENTRYPOINT ["tritonserver"]
