# Replaces rust:1.95-slim-bookworm. The build context contains rustup.
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
ENV RUSTUP_HOME=/usr/local/rustup CARGO_HOME=/usr/local/cargo PATH=/usr/local/cargo/bin:/usr/local/bin:/usr/bin:/bin
ARG RUSTUP_DIST_SERVER
COPY rustup-init ./
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates gcc libc6-dev \
    && ./rustup-init -y --no-modify-path --profile minimal --default-toolchain 1.95.0 \
    && rm rustup-init \
    && cargo --version
