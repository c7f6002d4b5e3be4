#!/usr/bin/env bash
# Start a Docker engine where none answers, and stop the one that was started here.
#
#     tools/docker_engine.sh start | stop
#
# For machines without an init system or without Docker, such as CI's. An engine of the user's own
# is used as it is and is never stopped. Ours listens where the docker client looks (DOCKER_HOST),
# keeps everything in one directory, and takes its containers and images with it when it goes.
set -euo pipefail

state=/var/cache/moonmind-queue-docker # below a directory that only root can write
pid_file="$state/pid"
host="${DOCKER_HOST:-unix:///var/run/docker.sock}"

answers() { docker info >/dev/null 2>&1; }

# A pid may be another process's by now; our data directory on the command line is proof.
ours() {
    [[ -s "$pid_file" && -e "/proc/$(<"$pid_file")" ]] &&
        tr '\0' ' ' <"/proc/$(<"$pid_file")/cmdline" | grep -qF -- "--data-root $state/data"
}

start() {
    if answers; then
        echo "a Docker engine answers already"
        return
    fi
    if [[ $EUID != 0 ]]; then
        echo "no Docker engine answers, and only root can start one" >&2
        return 1
    fi
    if ! command -v dockerd >/dev/null || ! command -v docker >/dev/null; then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -qq --no-install-recommends docker.io iptables >/dev/null
    fi
    mkdir -p "$state"
    chmod 700 "$state"
    rm -f "$state/dockerd.pid" # of an engine that was killed; this one takes over what it left
    echo "$host" >"$state/host"
    setsid dockerd --host "$host" --pidfile "$state/dockerd.pid" --data-root "$state/data" \
        --exec-root "$state/run" >"$state/log" 2>&1 </dev/null &
    echo $! >"$pid_file"
    for _ in $(seq 300); do
        answers && break
        sleep 0.1
    done
    if ! answers; then
        tail -n 20 "$state/log" >&2
        return 1
    fi
    echo "Docker engine $(docker info --format '{{.ServerVersion}}') started, pid $(<"$pid_file")"
}

stop() {
    [[ -d "$state" ]] || return 0
    ours || start # an engine that was killed: only a successor can clear up its containers
    local pid containers
    pid=$(<"$pid_file")
    export DOCKER_HOST # of our engine, whatever the client would talk to now
    DOCKER_HOST=$(<"$state/host")
    containers=$(docker ps --all --quiet) || true # it may hang half started
    # shellcheck disable=SC2086  # one word for each container
    [[ -z "$containers" ]] || docker rm --force --volumes $containers >/dev/null || true
    kill "$pid"
    for _ in $(seq 300); do
        [[ -e "/proc/$pid" ]] || break
        sleep 0.1
    done
    [[ ! -e "/proc/$pid" ]] || kill -KILL "$pid"
    ip link delete docker0 2>/dev/null || true # iproute2 may be missing; the bridge is harmless
    while umount "$state/data" 2>/dev/null; do :; done # a killed engine's mount of it is still there
    rm -rf "$state"
    echo "Docker engine stopped, pid $pid"
}

case "${1:-}" in
start | stop) "$1" ;;
*)
    echo "usage: tools/docker_engine.sh start | stop" >&2
    exit 2
    ;;
esac
