# A worker (moonmind-codex-worker) with Codex and git, and the command line to go with it.
ARG BASE=python:3.11-slim

FROM ${BASE} AS build
COPY . /source
RUN python3 -m venv /opt/moonmind \
    && /opt/moonmind/bin/pip install --no-cache-dir -c /source/constraints.txt '/source[codex]'

FROM ${BASE}
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates git \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/moonmind /opt/moonmind
ENV PATH=/opt/moonmind/bin:$PATH \
    MOONMIND_WORKDIR=/work \
    # Docker refuses the user namespaces that Codex makes its sandbox of. The container is the
    # sandbox: it holds nothing but the checkouts of one worker.
    MOONMIND_CODEX_SANDBOX_MODE=danger-full-access
RUN useradd --create-home worker && install -d -o worker -g worker /work
USER worker
WORKDIR /work
VOLUME /work
CMD ["moonmind-codex-worker"]
