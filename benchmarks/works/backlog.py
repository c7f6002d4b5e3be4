"""W4: whether a large backlog slows the work down: a million jobs that are ready, and what is not.

Three more millions are in front of those: jobs that wait for others, that are finished, that are of
other kinds and agents. The same number of jobs is done in both, and first with few.
"""

import time

from benchmarks.arena import Database
from benchmarks.contest import ContestantError
from benchmarks.works import Figures, Trial, Work
from benchmarks.works.drain import fill, workers

FEW = 20_000
CROWD = 1_000_000
WINDOW = (0.05, 0.95)  # of FEW: the beginning and the end are slower
PATIENCE = 120.0

# What a producer would do in a thousand calls, done by the owner of the tables in one. Whoever
# changes the tables changes this, and what tests/sql/test_plans.py fills.
CROWDS = """
insert into moonmind_queue.lane (agent, kind, capabilities, repository, concurrency_key)
values ('codex', 'nothing', '{}', '', ''), ('codex', 'other', '{}', '', ''),
       ('claude', 'other', '{}', '', '');
insert into moonmind_queue.job
    (agent, kind, state, run_at, created_at, updated_at, lane_id, unmet, event_seq, priority,
     payload, finished_at, rank)
select lane.agent, lane.kind, state, at, at, at, lane.id, (state = 'waiting')::integer, 1, priority,
       jsonb_build_object('n', n), case state when 'succeeded' then at end,
       moonmind_queue._rank(priority, at)
from (values (1, 'succeeded', 9, false), (2, 'waiting', 9, false), (3, 'queued', 9, true),
             (4, 'queued', 0, false)) as crowd (place, state, priority, "foreign"),
     generate_series(0, {crowd} - 1) as n,
     lateral (select now() - interval '1 hour' + n * interval '1 microsecond') as age (at),
     moonmind_queue.lane
where lane.id = case when crowd.foreign then 2 + n % 2 else 1 end
order by place, n;
insert into moonmind_queue.dependency (job_id, needs_job_id)
select id, id + {crowd} from moonmind_queue.job where state = 'waiting';
insert into moonmind_queue.ready (lane_id, rank, job_id)
select lane_id, rank, id from moonmind_queue.job where state = 'queued' order by id;
insert into moonmind_queue.event (job_id, seq, at, type)
select id, 1, created_at, 'created' from moonmind_queue.job;
"""


def backlog(trial: Trial) -> Figures:
    """Do 20,000 jobs, once all there are and once the first of a million."""
    crowd = round(CROWD * trial.scale)
    with trial.arena.database(trial.storage, trial.contestant) as database:
        fill(trial.contestant, database, FEW)
        few = _rate(trial, database)
    with trial.arena.database(trial.storage, trial.contestant) as database:
        with database.look.transaction():
            for statement in CROWDS.replace("{crowd}", str(crowd)).split(";\n"):
                database.look.execute(statement.encode())
        many = _rate(trial, database)
    return {
        "ratio": many / few,
        "jobs_per_second": many,
        "jobs_per_second_among_few": few,
        "ready": crowd,
        "others": 3 * crowd,
    }


def _rate(trial: Trial, database: Database) -> float:
    """Return the jobs a second of one worker process, which ends after the first 20,000."""
    database.look.execute("vacuum analyze")
    database.look.execute("checkpoint")
    samples = [(0.0, 0)]
    with workers(trial.contestant, database, 1) as [worker]:
        deadline = time.monotonic() + PATIENCE
        while samples[-1][1] < FEW:
            if time.monotonic() > deadline:
                raise ContestantError(f"did {samples[-1][1]} of {FEW} jobs in {PATIENCE:.0f} s")
            if said := worker.heard().get("handled"):
                samples.append((time.monotonic(), said))
            time.sleep(0.005)
    low, high = (share * FEW for share in WINDOW)
    inside = [sample for sample in samples if low <= sample[1] <= high]
    if len(inside) < 2:
        raise ContestantError(f"was done before it could be watched: {samples}")
    (began, first), (ended, last) = inside[0], inside[-1]
    return (last - first) / (ended - began)


WORKS = [
    Work(
        "W4",
        "drain with a million jobs in front, to 20,000",
        "ratio",
        backlog,
        storages=("disk", "tmpfs"),
        ours_only=True,
    )
]
