# TextLLM's server. docs/deployment.md says how to build and run it.
ARG BASE=docker.io/library/debian:trixie-slim

FROM ${BASE} AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY deploy/build-requirements.txt ./
RUN python3 -m venv tools \
    && tools/bin/pip install --no-cache-dir --require-hashes -r build-requirements.txt
# First what is needed, which changes seldom. Each of these files has to have a hash in constraints.txt.
ARG EXTRAS="server postgres s3 telemetry"
COPY pyproject.toml constraints.txt ./
RUN python3 -m venv --without-pip /opt/textllm \
    && tools/bin/uv pip install --python /opt/textllm/bin/python --no-cache --no-build --compile-bytecode \
        --require-hashes -c constraints.txt -r pyproject.toml $(printf -- '--extra %s ' ${EXTRAS})
COPY README.md LICENSE ./
COPY config config
COPY alembic alembic
COPY src src
RUN tools/bin/hatchling build -t wheel -d wheels \
    && tools/bin/uv pip install --python /opt/textllm/bin/python --no-cache --compile-bytecode --no-deps wheels/*.whl \
    && rm /opt/textllm/.lock

FROM ${BASE}
# tini is the first process: it hands on SIGTERM from the first moment, and buries whatever is left behind.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3 tini \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt /var/log/apt /var/log/dpkg.log \
    && install --directory --owner 10001 --group 10001 --mode 0700 /data
COPY --from=build /opt/textllm /opt/textllm

ARG VERSION=0.1.0
ARG REVISION=""
LABEL org.opencontainers.image.title="TextLLM" \
    org.opencontainers.image.description="A self-hosted conversation backend on OpenAI's APIs, with exact books." \
    org.opencontainers.image.licenses="MIT" \
    org.opencontainers.image.base.name="docker.io/library/debian:trixie-slim" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"

ENV PATH=/opt/textllm/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/data \
    TEXTLLM_DATA_DIR=/data \
    TEXTLLM_LOGGING__LOG_TO_FILE=false
# Here a config/config.yaml is read, where one is mounted.
WORKDIR /etc/textllm
USER 10001:10001
VOLUME /data
EXPOSE 8000
# A server that ends is not healthy, and is left to end: only a process manager that restarts it would act on this.
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s \
    CMD ["textllm", "health", "--server", "http://127.0.0.1:8000"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["tini", "--", "textllm"]
CMD ["serve", "--host", "0.0.0.0"]
