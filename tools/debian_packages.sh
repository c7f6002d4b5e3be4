#!/usr/bin/env bash
# Install Debian's packages of programs that are not there; their services stay off:
#
#   tools/debian_packages.sh pgbouncer gh systemd
#
# For CI, and for whoever wants the tests to run that need them. Wants root.
set -euo pipefail

PATH="$PATH:/usr/sbin"
policy=/usr/sbin/policy-rc.d

missing=()
for program in "$@"; do
    command -v "$program" >/dev/null || missing+=("$program")
done
if ((${#missing[@]})); then
    if [[ ! -e "$policy" ]]; then # without one, a package starts its service
        trap 'rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
    fi
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
    if [[ -e /etc/init.d/pgbouncer ]]; then
        update-rc.d pgbouncer disable # nor at the next start of the machine
    fi
fi
for program in "$@"; do
    "$program" --version | head -n 1
done
