#!/usr/bin/env bash
# Install PgBouncer from Debian's packages where there is none; its service stays off.
#
# For CI, and for whoever wants the tests of tests/system/test_pooler.py to run. Wants root.
set -euo pipefail

PATH="$PATH:/usr/sbin"
policy=/usr/sbin/policy-rc.d

if ! command -v pgbouncer >/dev/null; then
    if [[ ! -e "$policy" ]]; then # without one, the package starts a pooler on port 6432
        trap 'rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
    fi
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends pgbouncer >/dev/null
    update-rc.d pgbouncer disable # nor at the next start of the machine
fi
pgbouncer --version | head -n 1
