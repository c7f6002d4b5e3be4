# A worker (moonmind-codex-worker) with Codex, git and gh, and the command line to go with it.
ARG BASE=python:3.11-slim

FROM ${BASE} AS build
COPY . /source
RUN python3 -m venv /opt/moonmind \
    && /opt/moonmind/bin/pip install --no-cache-dir -c /source/constraints.txt '/source[codex]'

FROM ${BASE}
LABEL org.opencontainers.image.title="moonmind-queue" \
    org.opencontainers.image.description="A worker for Codex jobs queued in PostgreSQL"
# ssh is for repositories named git@host:path, gh for pull requests.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates gh git openssh-client \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/moonmind /opt/moonmind
# By its name for people: `codex login`.
RUN ln -s /opt/moonmind/lib/python3*/site-packages/codex_cli_bin/bin/codex /usr/local/bin/codex
ENV PATH=/opt/moonmind/bin:$PATH \
    MOONMIND_WORKDIR=/work \
    # Docker refuses the user namespaces that Codex makes its sandbox of. The container is the
    # sandbox: it holds nothing but the checkouts of one worker.
    MOONMIND_CODEX_SANDBOX_MODE=danger-full-access
# Its uid stays the same from build to build, for volumes that were written earlier.
RUN useradd --uid 1000 --create-home worker && install -d -o worker -g worker /work
USER worker
WORKDIR /work
VOLUME /work
# No HEALTHCHECK: a worker that cannot work ends, and one that is cut off from its database waits
# for it. `moonmind-queue workers` says on any machine which are alive.
CMD ["moonmind-codex-worker"]
