-- Tables, domains and indexes of the queue: the state that the functions act on.
--
-- One room per fact. What was asked for and how it stands is `job`. That it may be taken now is a
-- row in `ready`; that it may be taken later, a row in `scheduled`. That somebody has it is a row
-- in `lease`. What happened is `event`. What comes round again is `schedule`. A claim touches
-- `ready`, which is small, and never the million jobs that wait, are finished or belong to others.
--
-- Only the functions beside this file write these tables, so no foreign keys guard the hot ones.
-- Lock order, everywhere: the schedule or the DAG; the jobs acted on and those that depend on them, in one id order (a
-- job's id is above those of all that it needs, unless seed_dag() changed these; see _lock_late()); of one job first its row in `job`, then `ready` or
-- `scheduled`, then `lease`; then the budgets (see _lock_budgets()) and `usage_day`; last `pause` and `sleeper`. `claim` and `reclaim` never wait: they skip
-- what is locked.
create schema if not exists moonmind_queue;

comment on schema moonmind_queue
is 'Jobs, leases, history and artifacts of moonmind-queue. Look with the views; write with the functions.';

create domain moonmind_queue.job_state as text
    constraint job_state_is_known check (
        value in (
            'waiting', 'queued', 'claimed', 'running', 'blocked',
            'succeeded', 'failed', 'dead_letter', 'cancelled'
        )
    );

comment on domain moonmind_queue.job_state
is 'Where a job stands; docs/states.md has every transition.';

-- Rules for one column are domains: a table's checks are read and built anew for every statement on
-- it, whatever that changes, and that took four fifths of an update of one job. Rules between the
-- columns of a job are kept by the functions; the view queue_fault shows who breaks them.
create domain moonmind_queue.job_key as text
    constraint job_key_is_short check (value <> '' and length(value) <= 500);

create domain moonmind_queue.job_name as text
    constraint job_name_is_short check (length(value) <= 500);

create domain moonmind_queue.job_payload as jsonb
    constraint job_payload_is_an_object check (jsonb_typeof(value) = 'object');

create domain moonmind_queue.job_result as jsonb
    constraint job_result_is_an_object check (jsonb_typeof(value) = 'object');

create domain moonmind_queue.max_attempts as integer
    constraint job_max_attempts_is_positive check (value >= 1);

-- Infinity cannot be subtracted, and Python's years end with 9999.
create domain moonmind_queue.near_time as timestamptz
    constraint time_is_near check (
        value >= timestamptz '1900-01-01 00:00:00+00' and value < timestamptz '9000-01-01 00:00:00+00'
    );

create domain moonmind_queue.run_time as interval
    constraint timeout_is_positive check (value > interval '0' and value <= interval '1 year');

create domain moonmind_queue.dependency_policy as text
    constraint on_dependency_failure_is_known check (value in ('wait', 'cancel', 'run'));

create domain moonmind_queue.event_level as text
    constraint event_level_is_known check (value in ('debug', 'info', 'warn', 'error'));

comment on domain moonmind_queue.job_key is 'Given by a producer.';
comment on domain moonmind_queue.job_name is 'For people to read.';
comment on domain moonmind_queue.job_payload is 'A JSON object.';
comment on domain moonmind_queue.job_result is 'A JSON object.';
comment on domain moonmind_queue.max_attempts is 'A number of attempts.';
comment on domain moonmind_queue.near_time is 'A time that can be reckoned with.';
comment on domain moonmind_queue.run_time is 'How long one attempt may take.';
comment on domain moonmind_queue.dependency_policy is 'What becomes of a job when one that it needs ends without success.';
comment on domain moonmind_queue.event_level is 'How grave an event is.';

create table moonmind_queue.job (
    id           bigint generated always as identity primary key,
    key          moonmind_queue.job_key,
    name         moonmind_queue.job_name,
    agent        text        not null,
    kind         text        not null,
    state        moonmind_queue.job_state not null,
    priority     integer     not null default 0,
    run_at       moonmind_queue.near_time not null,
    attempt      integer     not null default 0,
    max_attempts moonmind_queue.max_attempts not null default 3,
    payload      moonmind_queue.job_payload not null default '{}',
    result       moonmind_queue.job_result,
    error        text,
    created_at   timestamptz not null,
    updated_at   timestamptz not null,
    started_at   timestamptz,
    finished_at  timestamptz,
    lane_id      integer     not null,
    unmet        integer     not null default 0,
    event_seq    integer     not null default 0,
    timeout      moonmind_queue.run_time,
    expires_at   moonmind_queue.near_time,
    on_dependency_failure moonmind_queue.dependency_policy not null default 'wait',
    rank         bigint      not null
)
-- A life rewrites the row twice, and no index names what changes: half of each page stays free for that.
with (fillfactor = 50);

create unique index job_key_idx on moonmind_queue.job (key) where key is not null;

-- created_at never changes, so that this costs no update; it finds what is old enough to go.
create index job_created_idx on moonmind_queue.job using brin (created_at);

comment on table moonmind_queue.job is 'One row per job: what was asked for and how it stands.';
comment on column moonmind_queue.job.key is 'Given by the producer; a second job with the same key is the same job.';
comment on column moonmind_queue.job.agent is 'Who is to do it; workers claim for the agents they serve.';
comment on column moonmind_queue.job.kind is 'What is to be done: names the executor.';
comment on column moonmind_queue.job.priority is 'Higher runs first; one level is worth one hour of waiting.';
comment on column moonmind_queue.job.run_at is 'Not claimable before; among equals the older runs first.';
comment on column moonmind_queue.job.attempt is 'Claims that were not handed back, from 1; 0 before the first.';
comment on column moonmind_queue.job.error is 'Why the job is not succeeded: last failure, or reason of block or cancel.';
comment on column moonmind_queue.job.started_at is 'When an attempt first began to run.';
comment on column moonmind_queue.job.lane_id is 'The lane of all that decides who may claim it; never changes.';
comment on column moonmind_queue.job.unmet is 'Dependencies that are not met yet; kept while the job is waiting or queued.';
comment on column moonmind_queue.job.event_seq is 'The number of its latest event; assigned under this row''s lock, so without gaps.';
comment on column moonmind_queue.job.timeout is 'How long one attempt may take, from its claim; null: run_timeout says.';
comment on column moonmind_queue.job.expires_at is 'Pointless from then on: cancelled unless an attempt is under way.';
comment on column moonmind_queue.job.on_dependency_failure
is 'When a job that it needs ends without success: wait for a person, cancel this one too, or run all the same.';
comment on column moonmind_queue.job.rank is 'The place in its lane, lowest first; see _rank().';

create table moonmind_queue.lane (
    id              integer generated always as identity primary key,
    agent           text    not null,
    kind            text    not null,
    capabilities    text[]  not null,
    repository      text    not null,
    concurrency_key text    not null,
    -- * stands for all agents and kinds where rules are made for them.
    constraint lane_agent_is_given check (agent ~ '^\S(.*\S)?$' and length(agent) <= 200 and agent <> '*'),
    constraint lane_kind_is_given check (kind ~ '^\S(.*\S)?$' and length(kind) <= 200 and kind <> '*'),
    constraint lane_concurrency_key_is_short check (length(concurrency_key) <= 500)
);

-- Not unique: whoever makes a lane in a long transaction would block all who need the same one. Two
-- that say the same are two lanes, and no harm.
create index lane_says_idx on moonmind_queue.lane (agent, kind, capabilities, repository, concurrency_key);

comment on table moonmind_queue.lane
is 'Who may claim a job and what it counts against: the unit in which claimable jobs are ordered.';
comment on column moonmind_queue.lane.repository is 'The repository that the payload names, as host/path in lower case; '''' without one.';
comment on column moonmind_queue.lane.concurrency_key is 'What run_limit may count: a repository, an API account; '''' without one.';

create table moonmind_queue.ready (
    rank    bigint  not null,
    job_id  bigint  not null,
    lane_id integer not null
)
with (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);

create unique index ready_order_idx on moonmind_queue.ready (lane_id, rank, job_id);

comment on table moonmind_queue.ready is 'Jobs that can be claimed now, in claim order per lane; a claim deletes the row.';

create table moonmind_queue.scheduled (
    run_at  timestamptz not null,
    job_id  bigint      not null,
    rank    bigint      not null,
    lane_id integer     not null,
    primary key (lane_id, run_at, job_id)
);

comment on table moonmind_queue.scheduled is 'Queued jobs whose run_at has not come; the first claim after it moves them to ready.';

create table moonmind_queue.expiry (
    expires_at timestamptz not null,
    job_id     bigint      not null,
    primary key (expires_at, job_id)
);

comment on table moonmind_queue.expiry is 'Jobs that are pointless from some time on, until then; reclaim() cancels them.';

create table moonmind_queue.dependency (
    job_id       bigint not null,
    needs_job_id bigint not null,
    primary key (job_id, needs_job_id),
    constraint dependency_is_on_another_job check (job_id <> needs_job_id)
);

create index dependency_needs_idx on moonmind_queue.dependency (needs_job_id, job_id);

comment on table moonmind_queue.dependency
is 'job_id may start only when needs_job_id has succeeded, or ended at all where job.on_dependency_failure is run.';

create sequence moonmind_queue.lease_token_seq;

create table moonmind_queue.lease (
    job_id              bigint      primary key,
    token               bigint      not null,
    attempt             integer     not null,
    lane_id             integer     not null,
    expires_at          timestamptz not null,
    deadline_at         timestamptz not null,
    worker              text        not null,
    cancel_requested_at timestamptz,
    cancel_reason       text,
    started             boolean     not null default false
)
-- Renewal rewrites expires_at in place: no index names it and half of each page stays free.
with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);

comment on table moonmind_queue.lease is 'One row per job that a worker holds.';
comment on column moonmind_queue.lease.token is 'The fence: new at every claim, never reused; every write of a holder carries it.';
comment on column moonmind_queue.lease.deadline_at is 'When the attempt has taken too long: no renewal reaches beyond.';
comment on column moonmind_queue.lease.lane_id is 'Of its job: what run_limit counts.';
comment on column moonmind_queue.lease.started is 'Whether the holder said that it runs the job: then that is running, else claimed.';
comment on column moonmind_queue.lease.cancel_requested_at is 'Set when somebody asked for the running job to be cancelled.';

create sequence moonmind_queue.event_pos_seq;

create table moonmind_queue.event (
    job_id  bigint      not null,
    seq     integer     not null,
    at      timestamptz not null,
    type    text        not null,
    level   moonmind_queue.event_level not null default 'info',
    message text        not null default '',
    worker  text,
    data    jsonb,
    pos     bigint      not null default nextval('moonmind_queue.event_pos_seq')
)
partition by range (at);

-- Unique, for seq is counted under the job's row lock; PostgreSQL could only see to it together with
-- the column that partitions are made by, which would prove nothing and cost every insert.
create index event_job_idx on moonmind_queue.event (job_id, seq);

create index event_pos_idx on moonmind_queue.event (pos);

-- Takes what no month has been made for, so that no insert ever fails; maintain() makes months.
create table moonmind_queue.event_default partition of moonmind_queue.event default;

comment on table moonmind_queue.event_default is 'Events of months without a partition of their own.';
comment on table moonmind_queue.event is 'The history: append-only, numbered from 1 without gaps for each job.';
comment on column moonmind_queue.event.pos is 'Where it stands among the events of all jobs; with gaps, and not in the order of commits: see read_events().';
comment on column moonmind_queue.event.worker is 'Who did it: a worker, or the database role of a producer or operator.';

create sequence moonmind_queue.log_pos_seq;

create table moonmind_queue.log_chunk (
    job_id  bigint      not null,
    pos     bigint      not null default nextval('moonmind_queue.log_pos_seq'),
    at      timestamptz not null,
    attempt integer     not null,
    stage   text        not null,
    stream  text        not null,
    content text        not null,
    primary key (job_id, pos, at),
    constraint log_stream_is_known check (stream in ('stdout', 'stderr')),
    constraint log_stage_is_short check (length(stage) <= 100)
)
partition by range (at);

create table moonmind_queue.log_chunk_default partition of moonmind_queue.log_chunk default;

comment on table moonmind_queue.log_chunk_default is 'Pieces of months without a partition of their own.';
comment on table moonmind_queue.log_chunk is 'What jobs print, while they run: append-only, in pieces of whole lines.';
comment on column moonmind_queue.log_chunk.pos is 'Grows within a job in the order of commits; with gaps.';
comment on column moonmind_queue.log_chunk.stage is 'What the attempt was at, in the executor''s words; empty where it has none.';

create domain moonmind_queue.artifact_name as text
    constraint artifact_name_is_safe check (
        value ~ '^[^/\\]+(/[^/\\]+)*$'
        and value !~ '(^|/)\.\.?(/|$)'
        and value !~ '[[:cntrl:]]'
        and value !~ '^[A-Za-z]:'
        and length(value) <= 512
    );

create domain moonmind_queue.content_type as text
    constraint artifact_content_type_is_given check (value ~ '^[[:graph:]]([[:print:]]*[[:graph:]])?$');

create domain moonmind_queue.byte_count as bigint
    constraint artifact_size_is_not_negative check (value >= 0);

create domain moonmind_queue.sha256_digest as text
    constraint artifact_sha256_is_hexadecimal check (value ~ '^[0-9a-f]{64}$');

comment on domain moonmind_queue.artifact_name is 'A relative path without a way up.';
comment on domain moonmind_queue.content_type is 'What a file is, such as text/plain.';
comment on domain moonmind_queue.byte_count is 'A size.';
comment on domain moonmind_queue.sha256_digest is 'In hexadecimal digits, lower case.';

create table moonmind_queue.artifact (
    id           bigint generated always as identity primary key,
    job_id       bigint      not null,
    attempt      integer     not null,
    token        bigint      not null,
    name         moonmind_queue.artifact_name not null,
    content_type moonmind_queue.content_type not null,
    size_bytes   moonmind_queue.byte_count not null,
    sha256       moonmind_queue.sha256_digest not null,
    created_at   timestamptz not null,
    sealed_at    timestamptz,
    -- The token stands for the attempt here: a job that was handed back or retried by a person
    -- counts the same attempt number twice.
    unique (job_id, token, name)
);

comment on table moonmind_queue.artifact is 'Files that attempts left behind; the bytes are in artifact_chunk.';
comment on column moonmind_queue.artifact.sealed_at is 'When the last byte had come and matched; before, nobody sees the artifact.';

create table moonmind_queue.artifact_chunk (
    artifact_id bigint not null,
    start_byte  bigint not null,
    content     bytea  not null,
    primary key (artifact_id, start_byte)
);

alter table moonmind_queue.artifact_chunk alter column content set storage external;

comment on table moonmind_queue.artifact_chunk is 'The bytes of an artifact; start_byte is where a chunk begins.';

create table moonmind_queue.worker (
    id           bigint generated always as identity primary key,
    worker       text        not null,
    agents       text[],
    kinds        text[],
    capabilities text[]      not null default '{}',
    slots        integer     not null,
    host         text        not null,
    pid          integer     not null,
    version      text        not null,
    versions     jsonb       not null default '{}',
    role         name        not null,
    started_at   timestamptz not null,
    seen_at      timestamptz not null,
    stopped_at   timestamptz,
    stop_requested_at timestamptz
);

create index worker_name_idx on moonmind_queue.worker (worker);

comment on table moonmind_queue.worker is 'One row per start of a worker process. Ownership of jobs is the lease, never this.';
comment on column moonmind_queue.worker.agents is 'Null: every agent.';
comment on column moonmind_queue.worker.version is 'Of moonmind-queue; versions has those of what else it runs with.';
comment on column moonmind_queue.worker.stop_requested_at is 'When somebody asked this process to end.';
comment on column moonmind_queue.worker.role is 'The role that it logged in as; policy says what that may do.';

-- Unlogged: after a crash no worker sleeps, for all have lost their connections.
create unlogged table moonmind_queue.sleeper (
    agent     text   not null,
    worker_id bigint not null
);

-- Not unique: falling asleep anew would wait for the producer that is waking the old row.
create index sleeper_agent_idx on moonmind_queue.sleeper (agent, worker_id);

comment on table moonmind_queue.sleeper
is 'Who waits for a notification for an agent (*: for any). Nobody else is notified, and each once.';

create table moonmind_queue.backoff (
    kind   text     primary key,
    base   interval not null,
    cap    interval not null,
    jitter double precision not null,
    constraint backoff_base_is_positive check (base > interval '0' and cap >= base),
    constraint backoff_jitter_is_a_share check (jitter >= 0 and jitter < 1)
);

comment on table moonmind_queue.backoff
is 'How long a failed job rests: base * 2^(attempt-1), at most cap, +- jitter. Kind * serves every kind without a row.';

insert into moonmind_queue.backoff (kind, base, cap, jitter)
values ('*', interval '15 s', interval '600 s', 0.25);

create table moonmind_queue.run_timeout (
    kind    text     primary key,
    timeout moonmind_queue.run_time not null
);

comment on table moonmind_queue.run_timeout
is 'How long one attempt may take where the job does not say. Kind * serves every kind without a row.';

insert into moonmind_queue.run_timeout (kind, timeout)
values ('*', interval '4 hours');

create table moonmind_queue.run_limit (
    scope       text    not null,
    name        text    not null,
    max_running integer not null,
    primary key (scope, name),
    constraint run_limit_scope_is_known check (scope in ('agent', 'kind', 'concurrency_key')),
    constraint run_limit_is_not_negative check (max_running >= 0)
);

comment on table moonmind_queue.run_limit
is 'How many jobs of an agent, a kind or a concurrency key may be leased at once. Name * serves each name without a row.';

create table moonmind_queue.pause (
    agent     text        not null,
    cause     text        not null,
    reason    text        not null,
    until     timestamptz,
    paused_at timestamptz not null,
    paused_by text        not null,
    primary key (agent, cause),
    constraint pause_cause_is_known check (cause in ('operator', 'cooldown'))
);

comment on table moonmind_queue.pause is 'Agents (*: all) whose jobs are not claimed, until some time or until resumed.';
comment on column moonmind_queue.pause.cause is 'operator: a person''s act, lost leases wait too; cooldown: a worker said that its account is used up.';

create table moonmind_queue.policy (
    role         name primary key,
    agents       text[],
    kinds        text[],
    repositories text[],
    capabilities text[],
    workers      text[],
    content_types      text[],
    artifact_max_bytes bigint,
    constraint policy_artifacts_may_have_bytes check (artifact_max_bytes >= 0)
);

comment on table moonmind_queue.policy
is 'What a worker that logs in as this role may claim and hold; a null list admits all. A role without a row may claim everything.';
comment on column moonmind_queue.policy.repositories is 'As host/path in lower case; host/owner/* admits all below.';
comment on column moonmind_queue.policy.workers is 'The worker ids that it may use.';
comment on column moonmind_queue.policy.content_types is 'What its artifacts may be, such as text/plain or text/*; in lower case.';
create table moonmind_queue.schedule (
    name        text        primary key,
    cron        text        not null,
    timezone    text        not null default 'UTC',
    job         jsonb       not null,
    catch_up    text        not null default 'once',
    paused      boolean     not null default false,
    revision    integer     not null default 1,
    next_at     timestamptz,
    last_at     timestamptz,
    last_job_id bigint,
    error       text,
    retry_at    timestamptz,
    created_at  timestamptz not null,
    updated_at  timestamptz not null,
    due_at      timestamptz generated always as (
        case when not paused then greatest(coalesce(next_at, created_at), retry_at) end
    ) stored,

    -- The name stands in the keys of the jobs, which are at most 500 long.
    constraint schedule_name_is_one_word check (name ~ '^[^[:space:][:cntrl:]]+$' and length(name) <= 200),
    constraint schedule_cron_has_five_fields check (cron ~ '^\S+( \S+){4}$' and length(cron) <= 200),
    constraint schedule_timezone_is_given check (timezone ~ '^\S+$' and length(timezone) <= 200),
    constraint schedule_job_is_an_object check (jsonb_typeof(job) = 'object'),
    constraint schedule_catch_up_is_known check (catch_up in ('skip', 'once', 'all')),
    constraint schedule_next_at_is_near check (
        next_at >= timestamptz '1900-01-01 00:00:00+00' and next_at < timestamptz '9000-01-01 00:00:00+00'
    )
);

create index schedule_due_idx on moonmind_queue.schedule (due_at);

comment on table moonmind_queue.schedule is 'What is enqueued again and again, and when next.';
comment on column moonmind_queue.schedule.cron is 'Minute, hour, day of month, month, day of week. Workers read it; the database does not.';
comment on column moonmind_queue.schedule.timezone is 'IANA name; the clock on the wall there decides.';
comment on column moonmind_queue.schedule.job is 'The parameters of one enqueue(), as in enqueue_many(), without key, run_at and after.';
comment on column moonmind_queue.schedule.catch_up is 'What becomes of missed occurrences: skip them, run the latest once, or run all.';
comment on column moonmind_queue.schedule.revision is 'Counts the definitions: what was computed from an older one is not acted upon.';
comment on column moonmind_queue.schedule.next_at is 'The earliest occurrence not dealt with; null: a worker has still to compute it.';
comment on column moonmind_queue.schedule.last_at is 'The latest occurrence that brought a job.';
comment on column moonmind_queue.schedule.last_job_id is 'The latest job, by occurrence or by hand; it may be pruned.';
comment on column moonmind_queue.schedule.error is 'Why no occurrence could be computed or enqueued.';
comment on column moonmind_queue.schedule.retry_at is 'After an error: no worker looks before.';
comment on column moonmind_queue.schedule.due_at is 'When a worker has to look at it; null while it is paused.';

create table moonmind_queue.retention (
    what text primary key,
    keep interval,
    constraint retention_is_positive check (keep > interval '0')
);

comment on table moonmind_queue.retention
is 'How long maintain() keeps what has ended, with its history and artifacts; null: for ever.';

insert into moonmind_queue.retention (what, keep)
values ('job', interval '90 days');

create table moonmind_queue.dag (
    name      text        primary key,
    source    text        not null,
    epoch     integer     not null default 1,
    seeded_at timestamptz not null,
    reset_at  timestamptz,
    constraint dag_name_is_given check (name ~ '^\S(.*\S)?$' and length(name) <= 200),
    constraint dag_source_is_short check (length(source) <= 1000)
);

comment on table moonmind_queue.dag is 'Graphs of tasks that were seeded from a file.';
comment on column moonmind_queue.dag.source is 'Where its tasks came from the last time.';
comment on column moonmind_queue.dag.epoch is 'Counts from 1; reset_dag() begins the next one.';

create table moonmind_queue.dag_task (
    job_id bigint  primary key,
    dag    text    not null,
    gone   boolean not null default false
);

create index dag_task_dag_idx on moonmind_queue.dag_task (dag);

comment on table moonmind_queue.dag_task is 'Which jobs are tasks of a DAG; prune() keeps these as long as the file has them.';
comment on column moonmind_queue.dag_task.gone is 'Blocked because the file does not have it any more; restored when it returns.';

create table moonmind_queue.publication (
    job_id   bigint      not null,
    step     text        not null,
    content  text        not null,
    token    bigint      not null,
    data     jsonb       not null default '{}',
    begun_at timestamptz not null,
    done_at  timestamptz,
    over     boolean     not null default false,
    primary key (job_id, step, content),
    constraint publication_step_is_a_word check (step ~ '^[a-z][a-z_]{0,62}$'),
    constraint publication_content_is_short check (length(content) <= 500),
    constraint publication_data_is_an_object check (jsonb_typeof(data) = 'object')
);

comment on table moonmind_queue.publication
is 'What a job does outside of this database, step by step: a row before each step, and done_at after it.';
comment on column moonmind_queue.publication.content is 'What the step makes, such as a commit''s id: the same again is the same step.';
comment on column moonmind_queue.publication.token is 'Of the lease under which it was begun the last time.';
comment on column moonmind_queue.publication.over is 'Of a run before somebody retried the job: what it pushed counts, where it stopped does not.';

create table moonmind_queue.follow_up (
    job_id      bigint not null,
    event       text   not null,
    number      bigint not null,
    job         jsonb  not null,
    role        name   not null,
    made_job_id bigint,
    primary key (job_id, event, number),
    constraint follow_up_event_is_known check (event in ('success', 'failure'))
);

comment on table moonmind_queue.follow_up is 'What is enqueued when a job ends, once for each event.';
comment on column moonmind_queue.follow_up.number is 'Its place in on_success or on_failure, from 1.';
comment on column moonmind_queue.follow_up.job is 'The parameters of one enqueue(), as in enqueue_many(); it was tried out when it came.';
comment on column moonmind_queue.follow_up.role is 'Who enqueued it: what it becomes counts for the allowance of that login.';
comment on column moonmind_queue.follow_up.made_job_id is 'What it has become; it may be pruned.';

create table moonmind_queue.origin (
    job_id      bigint  primary key,
    from_job_id bigint  not null,
    how         text    not null,
    depth       integer not null,
    constraint origin_how_is_known check (how in ('success', 'failure', 'job', 'replay'))
);

create index origin_from_idx on moonmind_queue.origin (from_job_id);

comment on table moonmind_queue.origin is 'Jobs that came from another job: on its success or failure, made in its course, or its replay.';
comment on column moonmind_queue.origin.depth is 'How many jobs it is away from one that came from none; a replay counts as what it replays.';

create table moonmind_queue.allowance (
    role         name primary key,
    agents       text[],
    kinds        text[],
    repositories text[],
    max_open     integer,
    max_per_day  integer,
    max_depth    integer,
    constraint allowance_is_not_negative check (max_open >= 0 and max_per_day >= 0 and max_depth >= 0)
);

comment on table moonmind_queue.allowance
is 'What a login may enqueue; null admits all. A role without a row may enqueue everything.';
comment on column moonmind_queue.allowance.repositories is 'As host/path in lower case; host/owner/* admits all below.';
comment on column moonmind_queue.allowance.max_open is 'How many of its jobs may be unfinished at once.';
comment on column moonmind_queue.allowance.max_per_day is 'How many jobs it may add within 24 hours.';
comment on column moonmind_queue.allowance.max_depth is 'How many jobs away from one that came from none.';

create table moonmind_queue.enqueued (
    role   name        not null,
    job_id bigint      not null,
    at     timestamptz not null,
    primary key (role, job_id)
);

comment on table moonmind_queue.enqueued
is 'The jobs of logins that have an allowance: those of the last 24 hours, and older ones that are unfinished.';

create table moonmind_queue.message (
    id       bigint generated always as identity primary key,
    job_id   bigint      not null,
    said_at  timestamptz not null,
    said_by  text        not null,
    content  text        not null,
    heard_at timestamptz
);

create index message_job_idx on moonmind_queue.message (job_id, id);

comment on table moonmind_queue.message is 'What people say to the agents at work on jobs.';
comment on column moonmind_queue.message.said_by is 'The role that said it.';
comment on column moonmind_queue.message.heard_at is 'When an attempt took it, to tell its agent.';

create table moonmind_queue.failure_rule (
    name    text     primary key,
    place   integer  not null,
    source  text     not null,
    pattern text     not null,
    outcome text     not null,
    rest    interval,
    most    integer,
    pauses  boolean  not null default false,
    advice  text     not null default '',
    constraint failure_rule_name_is_a_word check (name ~ '^[a-z][a-z_]{0,62}$'),
    constraint failure_rule_source_is_a_word check (source ~ '^([a-z][a-z_]{0,62}|\*)$'),
    constraint failure_rule_pattern_is_short check (pattern <> '' and length(pattern) <= 2000),
    constraint failure_rule_outcome_is_known check (outcome in ('retry', 'block', 'fail', 'cool_down')),
    constraint failure_rule_rest_is_bounded check (rest > interval '0' and rest <= interval '31 days'),
    constraint failure_rule_most_is_positive check (most >= 1),
    constraint failure_rule_cool_down_has_a_rest check (outcome <> 'cool_down' or rest is not null),
    constraint failure_rule_advice_is_short check (length(advice) <= 1000)
);

comment on table moonmind_queue.failure_rule
is 'What a failure means, by what a program printed; the first that matches counts. docs/failures.md has the evidence.';
comment on column moonmind_queue.failure_rule.place is 'Rules are tried in this order, then by name.';
comment on column moonmind_queue.failure_rule.source is 'What printed it, such as codex or git; * is any.';
comment on column moonmind_queue.failure_rule.pattern is 'A regular expression; upper and lower case are the same.';
comment on column moonmind_queue.failure_rule.rest
is 'How long until the next attempt, or the rest of the agent with cool_down, where the text does not say; null: the back-off.';
comment on column moonmind_queue.failure_rule.most is 'After so many attempts that failed like this the job has failed; null: as many as it has.';
comment on column moonmind_queue.failure_rule.pauses is 'Whether the agent is paused with the reason until somebody resumes it.';
comment on column moonmind_queue.failure_rule.advice is 'What a person can do; it is added to the error.';

insert into moonmind_queue.failure_rule (name, place, source, pattern, outcome, rest, most, pauses, advice)
values
    ('quota', 10, 'codex', 'quota exceeded|insufficient_quota|usage limit|too many requests|last status: 429\M',
     'cool_down', interval '10 minutes', null, false, ''),
    ('authentication', 20, 'codex',
     'unexpected status 40[13]\M|last status: 40[13]\M|missing environment variable|not logged in|incorrect api key',
     'block', null, null, true, 'log Codex in on the workers, or set its key, then resume the agent and retry the job'),
    ('context_exceeded', 30, 'codex', 'room in the model.s context window|context_length_exceeded', 'fail', null, null, false,
     'give the job less to do at once'),
    ('refused', 40, 'codex',
     'unexpected status 40[04]\M|the model `[^`]*` does not exist|input exceeds the maximum length|^[^{]*: \s*\{\s*"error"',
     'fail', null, null, false, ''),
    ('configuration', 50, 'codex', 'exited with 2\M|error loading config', 'block', null, null, true,
     'this Codex does not know an option or a setting: see docs/failures.md for the versions that do'),
    ('sandbox', 60, 'codex', 'bwrap|bubblewrap|sandbox (is )?broken', 'block', null, null, false,
     'allow user namespaces on the worker, or use another sandbox mode there'),
    ('network', 70, 'codex',
     'stream disconnected|connection (failed|refused|reset)|could not resolve|unexpected status 5\d\d\M|high demand|idle timeout',
     'retry', null, null, false, ''),
    ('unreachable', 100, 'git',
     'could not (resolve|connect)|connection (refused|reset|timed out|closed)|timed out|returned error: 5\d\d\M',
     'retry', null, null, false, ''),
    ('repository_not_found', 110, 'git',
     'not found|does not exist|does not appear to be a git repository|returned error: 404\M',
     'fail', null, null, false, 'check the name of the repository, the ref, and who may read it'),
    ('repository_access', 120, 'git',
     'could not read (username|password)|authentication failed|permission denied \(|access denied|host key verification failed|returned error: 40[13]\M',
     'block', null, null, false, 'give the worker access to the repository, then retry the job'),
    ('pull_request_access', 130, 'gh',
     'gh auth login|http 40[13]\M|bad credentials|must have push access|resource not accessible',
     'block', null, null, false, 'give GITHUB_TOKEN the right to open pull requests, then retry the job'),
    ('pull_request_refused', 140, 'gh', 'http 4(04|22)\M|could not resolve to a repository|no commits between',
     'block', null, null, false, ''),
    ('timeout', 210, 'run', 'exceeded \d|no event of', 'retry', null, 2, false, '');

create domain moonmind_queue.token_number as bigint
    constraint tokens_are_not_negative check (value >= 0 and value < 1000000000000000);

comment on domain moonmind_queue.token_number is 'A number of tokens of a model.';

create table moonmind_queue.usage_thread (
    job_id              bigint not null,
    thread              text   not null,
    token               bigint not null,
    input_tokens        moonmind_queue.token_number not null,
    cached_input_tokens moonmind_queue.token_number not null,
    output_tokens       moonmind_queue.token_number not null,
    reasoning_tokens    moonmind_queue.token_number not null,
    primary key (job_id, thread, token),
    constraint usage_thread_is_given check (thread <> '' and length(thread) <= 200)
);

comment on table moonmind_queue.usage_thread
is 'Where the counters of a conversation with a model stood when an attempt last told: they count from its beginning.';
comment on column moonmind_queue.usage_thread.token is 'Of the lease of that attempt.';

create table moonmind_queue.usage (
    job_id              bigint  not null,
    token               bigint  not null,
    model               text    not null,
    day                 date    not null,
    attempt             integer not null,
    input_tokens        moonmind_queue.token_number not null,
    cached_input_tokens moonmind_queue.token_number not null,
    output_tokens       moonmind_queue.token_number not null,
    reasoning_tokens    moonmind_queue.token_number not null,
    over                boolean not null default false,
    primary key (job_id, token, model, day),
    constraint usage_model_is_short check (length(model) <= 200)
);

comment on table moonmind_queue.usage is 'What each attempt used, by model and by day of UTC.';
comment on column moonmind_queue.usage.token is 'Of the lease of the attempt.';
comment on column moonmind_queue.usage.model is ''''' where nobody said which.';
comment on column moonmind_queue.usage.over is 'Of a run before somebody retried the job: the job''s own budget no longer counts it.';

create table moonmind_queue.usage_day (
    day                 date not null,
    agent               text not null,
    kind                text not null,
    repository          text not null,
    model               text not null,
    input_tokens        moonmind_queue.token_number not null,
    cached_input_tokens moonmind_queue.token_number not null,
    output_tokens       moonmind_queue.token_number not null,
    reasoning_tokens    moonmind_queue.token_number not null,
    primary key (day, agent, kind, repository, model)
);

comment on table moonmind_queue.usage_day is 'What all jobs used each day of UTC; it stays when the jobs are pruned.';

create table moonmind_queue.token_price (
    model        text    not null,
    since        date    not null,
    input        numeric not null,
    cached_input numeric not null,
    output       numeric not null,
    currency     text    not null,
    primary key (model, since),
    constraint token_price_model_is_given check (model <> '' and length(model) <= 200),
    constraint token_price_is_not_negative check (least(input, cached_input, output) >= 0 and greatest(input, cached_input, output) < 1000000),
    constraint token_price_since_is_near check (since >= date '2000-01-01' and since < date '9000-01-01'),
    constraint token_price_currency_is_a_word check (currency ~ '^[A-Z]{3}$')
);

comment on table moonmind_queue.token_price
is 'What a million tokens of a model cost from some day on. Model * serves every model without a row.';

create table moonmind_queue.budget (
    scope  text not null,
    name   text not null,
    period text not null,
    tokens moonmind_queue.token_number,
    cost   numeric,
    primary key (scope, name, period),
    constraint budget_scope_is_known check (scope in ('job', 'repository', 'agent', 'queue')),
    constraint budget_name_is_given check (name <> '' and length(name) <= 500),
    constraint budget_period_is_known check (period in ('day', 'month', 'total')),
    constraint budget_of_a_job_is_for_all_its_attempts check (scope <> 'job' or period = 'total'),
    constraint budget_of_the_queue_has_no_name check (scope <> 'queue' or name = '*'),
    constraint budget_bounds_something check (tokens is not null or cost is not null),
    constraint budget_is_positive check (tokens > 0 and coalesce(cost, 1) > 0 or tokens is null and cost > 0),
    constraint budget_cost_is_a_number check (cost < 1000000000000)
);

comment on table moonmind_queue.budget
is 'How much may be used: tokens, money, or whatever is used up first. Name * serves each name without a row.';
comment on column moonmind_queue.budget.scope is 'job (name is the kind), repository, agent, or queue for all together.';
comment on column moonmind_queue.budget.period is 'A day or a month of UTC, or total.';

create table moonmind_queue.spent_budget (
    scope  text not null,
    name   text not null,
    period text not null,
    until  timestamptz,
    reason text not null,
    primary key (scope, name, period)
);

comment on table moonmind_queue.spent_budget
is 'Budgets that are used up, so that a claim has next to nothing to look at; null until: for good.';
