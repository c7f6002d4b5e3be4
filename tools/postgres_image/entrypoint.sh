#!/bin/sh
# Stand-in for the entry point of the official postgres image: the parts of it that we use.
#
# POSTGRES_PASSWORD (required), POSTGRES_USER, POSTGRES_DB and PGDATA mean what they mean there, and
# arguments that begin with "-" are the server's. Everything else is refused rather than ignored.
set -eu

case "${1:-}" in
"" | -*) set -- postgres "$@" ;;
esac
[ "$1" = postgres ] || exec "$@"

if [ "$(id -u)" = 0 ]; then
    mkdir -p "$PGDATA"
    chown postgres:postgres "$PGDATA"
    chmod 700 "$PGDATA"
    exec setpriv --reuid=postgres --regid=postgres --clear-groups "$0" "$@"
fi

if [ -s "$PGDATA/PG_VERSION" ]; then
    exec "$@"
fi

for name in POSTGRES_INITDB_ARGS POSTGRES_HOST_AUTH_METHOD POSTGRES_PASSWORD_FILE; do
    eval "value=\${$name:-}"
    if [ -n "$value" ]; then
        echo "this stand-in for the postgres image does not know $name" >&2
        exit 2
    fi
done
: "${POSTGRES_PASSWORD:?the superuser needs a password}"
user="${POSTGRES_USER:-postgres}"
database="${POSTGRES_DB:-$user}"

umask 077
printf '%s\n' "$POSTGRES_PASSWORD" >/tmp/password
initdb --pgdata="$PGDATA" --username="$user" --pwfile=/tmp/password --encoding=UTF8 \
    --locale=C.UTF-8 --auth-local=trust --auth-host=scram-sha-256 --no-sync --no-instructions
rm /tmp/password
echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
echo "listen_addresses = '*'" >>"$PGDATA/postgresql.conf"
# In single-user mode: nobody can connect before everything is there.
if [ "$database" != postgres ]; then
    echo "create database \"$database\"" | postgres --single -D "$PGDATA" postgres >/dev/null
fi
exec "$@"
