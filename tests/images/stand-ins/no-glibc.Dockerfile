# Replaces alpine: programs without glibc.
ARG BASE_IMAGE
FROM ${BASE_IMAGE} AS files
RUN apt-get update && apt-get install -y --no-install-recommends busybox-static \
    && mkdir -p /image/bin /image/etc && mkdir -m 1777 /image/tmp \
    && cp /bin/busybox /image/bin/ \
    && chroot /image /bin/busybox --install -s /bin
FROM scratch
COPY --from=files /image/ /
