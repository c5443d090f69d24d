# The model repository, to be copied into a pod's volume by an init container. Run `make models` before building.
# The digest of the base is not pinned here, because no registry could be asked when this was written.
ARG BUSYBOX=busybox:1.37.0-musl

FROM ${BUSYBOX}
COPY model_repository /model_repository
USER 10001:10001
ENTRYPOINT ["cp", "-R", "/model_repository/."]
CMD ["/models/"]
