#!/usr/bin/env bash
# Prove the image and compose.yaml: it has all that a worker needs, and two workers of it share the
# work and stop in order.
#
# Needs the image (MOONMIND_IMAGE, or moonmind-queue) and `docker compose`; leaves nothing behind.
set -euo pipefail

cd "$(dirname "$0")/.."
jobs=20
export COMPOSE_PROJECT_NAME="moonmind-test-$$" POSTGRES_PORT="" MOONMIND_NOOP_SECONDS=0.2
unset CODEX_API_KEY # noop jobs need no login, and a test must not spend money

query() { docker compose exec -T postgres psql -U moonmind -At -c "$1"; }

finish() {
    status=$?
    [[ $status == 0 ]] || docker compose logs --no-color >&2 || true
    docker compose down --volumes --timeout 5 >/dev/null 2>&1
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT TERM

docker compose up --no-build --detach --quiet-pull --scale worker=2 2>&1 | tail -n 1
# With a key that nobody asks: what is missing on this machine is missing in the image.
found=$(docker compose exec -T --index 1 -e CODEX_API_KEY=unused worker moonmind-codex-worker doctor) ||
    { echo "$found" >&2 && exit 1; }
for needed in "git +ok +[0-9]" "codex +ok +[0-9]" "codex login +ok +by CODEX_API_KEY" \
    "codex sandbox +ok +danger-full-access" "gh +ok +/usr/bin/gh" "work folder +ok .* as uid 1000"; do
    grep -qE "^$needed" <<<"$found" || { echo "no line '$needed' in:" "$found" >&2 && exit 1; }
done
docker compose exec -T --index 1 worker sh -c 'codex --version && gh --version && ssh -V' >/dev/null 2>&1
echo "doctor finds nothing missing in the image, as an ordinary user"

docker compose exec -T --index 1 worker moonmind-queue enqueue noop >/dev/null
# The others at once: of two idle workers the same one may always be the first to hear of a job.
query "select moonmind_queue.enqueue('noop') from generate_series(2, $jobs)" >/dev/null

for _ in $(seq 60); do
    done_jobs=$(query "select count(*) from moonmind_queue.job where state = 'succeeded'")
    [[ "$done_jobs" != "$jobs" ]] || break
    sleep 0.5
done
workers=$(query "select count(distinct worker) from moonmind_queue.event where type = 'completed'")
echo "$done_jobs of $jobs jobs succeeded, on $workers workers"
[[ "$done_jobs" == "$jobs" && "$workers" == 2 ]]

docker compose stop worker 2>/dev/null
stopped=$(query "select count(*) from moonmind_queue.worker_overview where status = 'stopped'")
echo "$stopped of 2 workers said that they stopped"
[[ "$stopped" == 2 ]]
