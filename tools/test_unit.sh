#!/usr/bin/env bash
# Run the test-suite; arguments are pytest's: tools/test_unit.sh -k claim -x
set -euo pipefail

cd "$(dirname "$0")/.."
for python in .venv/bin/python python3; do
    if "$python" -c 'import psycopg, pytest' 2>/dev/null; then
        exec "$python" -m pytest "$@"
    fi
done
echo "neither .venv nor python3 has pytest and psycopg: 'make test' installs them first" >&2
exit 127
