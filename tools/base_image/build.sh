#!/usr/bin/env bash
# Build a local base image with Python for our Dockerfile where python:*-slim cannot be pulled.
#
#     tools/base_image/build.sh [TAG]          (moonmind-queue-base)
#
# A minimal Debian of this machine's release, from this machine's own package sources.
set -euo pipefail

tag="${1:-moonmind-queue-base}"
# shellcheck source=/dev/null
release=$(. /etc/os-release && echo "$VERSION_CODENAME")
certificates=/etc/ssl/certs/ca-certificates.crt
sources=()
for file in /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources; do
    [[ ! -s "$file" ]] || sources+=("$file")
done

if ! command -v mmdebstrap >/dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends mmdebstrap >/dev/null
fi
# The certificates are this machine's too: where only a mirror with its own authority is reached,
# pip in the image must trust it.
mmdebstrap --quiet --variant=minbase --include=ca-certificates,python3-venv \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --customize-hook="copy-in $certificates $(dirname "$certificates")" \
    "$release" - "${sources[@]}" |
    docker import --change "ENV PIP_CERT=$certificates SSL_CERT_FILE=$certificates" - "$tag" >/dev/null
docker image inspect --format "built $tag, {{.Size}} bytes" "$tag"
