-- >>> sql/schema.sql
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
-- <<<
-- >>> sql/_add_follow_ups.sql
-- _add_follow_ups(jobs, ids, made, try) → void; keeps what those of the jobs that are new list.
--
-- Contract
--   * ids are the jobs' by place, made those that are new.
--   * With try all levels are enqueued and that is taken back, as of a schedule's job: whatever
--     enqueue refuses is refused now, in its words, and nothing can keep a job from ending later.
-- Errors    22023 too many or too deep, a name that a follow-up cannot have; those of enqueue_many().
create or replace function moonmind_queue._add_follow_ups(
    p_jobs jsonb,
    p_ids  bigint[],
    p_made bigint[],
    p_try  boolean
)
returns void
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_new   constant bigint[] := array(  -- places; a key may stand twice in one call: the first is the job
        select min(place) from unnest(p_ids) with ordinality as given (id, place)
        where id = any (p_made)
        group by id
    );
    v_each  record;
    v_fault text;
begin
    insert into follow_up (job_id, event, number, job, role)
    select p_ids[place], event, number, job, session_user
    from _follow_ups(p_jobs)
    where depth = 1 and place = any (v_new);
    if not p_try then
        return;
    end if;

    select format('job %s: its follow-ups are %s; at most 100 jobs in 5 levels are kept', place,
                  case when max(depth) > 5 then 'nested more than 5 levels deep' else count(*) || ' jobs' end)
    into v_fault
    from _follow_ups(p_jobs)
    where place = any (v_new)
    group by place
    having max(depth) > 5 or count(*) > 100
    order by place
    limit 1;
    if v_fault is not null then
        raise exception '%', v_fault using errcode = 'invalid_parameter_value';
    end if;
    select format('the allowance of %s admits %s generations of jobs made by jobs, and job %s would bring %s',
                  session_user, max_depth, place, coalesce(origin.depth, 0) + listed.depth)
    into v_fault
    from allowance
    cross join _follow_ups(p_jobs) as listed
    left join origin on origin.job_id = p_ids[place]
    where role = session_user and place = any (v_new) and coalesce(origin.depth, 0) + listed.depth > max_depth
    limit 1;
    if found then
        raise exception '%', v_fault using errcode = 'MQ004';
    end if;
    begin
        for v_each in select * from _follow_ups(p_jobs) where place = any (v_new) loop
            perform _check_jobs(jsonb_build_array(v_each.job));
            if v_each.job ?| '{after,made_by}' then
                raise exception 'it cannot have after or made_by, for it comes after its job; a chain nests on_success'
                    using errcode = 'invalid_parameter_value';
            end if;
            perform _add_jobs(jsonb_build_array(v_each.job - '{on_success,on_failure}'::text[]));
        end loop;
        raise sqlstate 'MQ999';  -- a way back, and no error: it never leaves this block
    exception
        when sqlstate 'MQ999' then
            null;
        when data_exception or integrity_constraint_violation or sqlstate 'MQ004' then
            raise exception 'job %: on_% %: %', v_each.place, v_each.event, v_each.number, regexp_replace(sqlerrm, '^job 1: ', '')
                using errcode = sqlstate;
    end;
end;
$$;

comment on function moonmind_queue._add_follow_ups(jsonb, bigint[], bigint[], boolean)
is 'Keep what jobs want enqueued when they end.';
-- <<<
-- >>> sql/_add_jobs.sql
-- _add_jobs(jobs, charged, how) → their ids, in input order; what enqueue_many() promises.
--
-- Contract
--   * Charged: the login's allowance must admit the jobs with all that may follow them, and
--     follow-ups are tried out. Not so for those whose rules somebody else has settled before.
--   * how says what a made_by of a job means: success or failure of that job, its course, a replay.
-- Locks     as enqueue_many(); then the login's row in allowance.
-- Errors    those of enqueue_many().
create or replace function moonmind_queue._add_jobs(
    p_jobs    jsonb,
    p_charged boolean default true,
    p_how     text    default 'job'
)
returns setof bigint
language plpgsql
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_now   constant timestamptz := _now();
    v_lanes integer[];  -- by place in the call, as the next three
    v_keys  text[];
    v_ids   bigint[];   -- what is returned
    v_new   boolean[];
    v_made  bigint[];   -- the jobs that this call makes
    v_from  constant boolean := jsonb_path_exists(p_jobs, '$[*].made_by ? (@ != null)');
begin
    perform _check_jobs(p_jobs);
    v_lanes := _lanes(p_jobs);
    select array_agg(key order by place), array_agg(id order by place), array_agg(is_new order by place)
    into v_keys, v_ids, v_new
    from _number_jobs(p_jobs);

    with made as (
        insert into job (
            id, key, name, agent, kind, state, priority, run_at, max_attempts, payload, created_at,
            updated_at, lane_id, event_seq, timeout, expires_at, on_dependency_failure, rank
        )
        overriding system value
        select id, key, name, coalesce(agent, 'codex'), kind, 'queued', coalesce(priority, 0),
               coalesce(run_at, v_now), coalesce(max_attempts, 3), coalesce(payload, '{}'), v_now, v_now,
               lane_id, 1, timeout, expires_at, coalesce(on_dependency_failure, 'wait'),
               case when isfinite(run_at) is not false
                   then _rank(coalesce(priority, 0), coalesce(run_at, v_now)) else 0 end
        from rows from (
            jsonb_to_recordset(p_jobs) as (
                kind text, payload jsonb, agent text, name text, key text, priority integer,
                run_at timestamptz, max_attempts integer, timeout interval, expires_at timestamptz,
                on_dependency_failure text
            ),
            unnest(v_lanes), unnest(v_ids), unnest(v_new)
        ) as given (
            kind, payload, agent, name, key, priority, run_at, max_attempts, timeout, expires_at,
            on_dependency_failure, lane_id, id, is_new
        )
        where is_new
        order by key
        on conflict (key) where key is not null do nothing
        returning id, expires_at
    ),
    expiring as (
        insert into expiry (expires_at, job_id)
        select expires_at, id from made where expires_at is not null
    )
    select coalesce(array_agg(id), '{}') into v_made from made;

    if array_remove(v_keys, null) <> '{}' then
        -- A transaction that committed one of the keys meanwhile has made that job.
        select array_agg(coalesce(job.id, numbered.id) order by place) into v_ids
        from unnest(v_keys, v_ids) with ordinality as numbered (key, id, place)
        left join job on job.key = numbered.key;
    end if;

    if v_from then
        perform _add_origins(p_jobs, v_ids, v_made, p_how);
    end if;
    insert into event (job_id, seq, at, type, worker, message)
    select id, 1, v_now, 'created', session_user,
           case when v_from then coalesce((select in_words from job_origin where job_id = id), '') else '' end
    from unnest(v_made) as id;
    if jsonb_path_exists(p_jobs, '$[*].after[*]') then
        perform _add_needs(p_jobs, v_keys, v_ids, v_made);
    end if;
    perform _offer(v_made);
    perform _cancel_doomed(v_made);
    if p_charged then
        perform _charge(v_made) from allowance where role = session_user;
    end if;
    if jsonb_path_exists(p_jobs, '$[*] ? (exists (@.on_success[*]) || exists (@.on_failure[*]))') then
        perform _add_follow_ups(p_jobs, v_ids, v_made, p_charged);
    end if;
    return query select unnest(v_ids);
end;
$$;

comment on function moonmind_queue._add_jobs(jsonb, boolean, text)
is 'Add many jobs in one call.';
-- <<<
-- >>> sql/_add_needs.sql
-- _add_needs(jobs, keys, ids, made) → void; writes the dependencies of the jobs that a call made.
--
-- keys and ids are by place in the call; made are the ids of the new jobs.
--
-- Locks     jobs of earlier calls that are needed, shared, in id order.
-- Errors    22023 unknown dependency.
create or replace function moonmind_queue._add_needs(
    p_jobs jsonb,
    p_keys text[],
    p_ids  bigint[],
    p_made bigint[]
)
returns void
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_child bigint[];  -- edge → the job, and
    v_needs bigint[];  --        the job that it needs
    v_fault text;
begin
    with edge as materialized (
        select place::integer as place, p_ids[place] as child, need #>> '{}' as need,
               jsonb_typeof(need) as type
        from jsonb_array_elements(p_jobs) with ordinality as given (job, place)
        cross join lateral jsonb_array_elements(
            case jsonb_typeof(job -> 'after') when 'array' then job -> 'after' else '[]' end
        ) as need
    ),
    made as materialized (  -- each at its first place: what a repeated key says is not heard
        select numbered.id, numbered.key, min(numbered.place) as place
        from unnest(p_ids, p_keys) with ordinality as numbered (id, key, place)
        join unnest(p_made) as made (id) using (id)
        group by numbered.id, numbered.key
    ),
    resolved as (
        select edge.place, edge.child, edge.need,
               coalesce(made.id, by_key.id, case when guessed.id is null then by_id.id end) as needs
        from edge
        join made as own on own.place = edge.place
        left join made on edge.type = 'string' and made.key = edge.need
        left join job as by_key on edge.type = 'string' and by_key.key = edge.need
        left join job as by_id
            on edge.type = 'number' and by_id.id = (case edge.type when 'number' then edge.need end)::bigint
        -- An id that this call has only just given was guessed, and could close a circle.
        left join made as guessed on guessed.id = by_id.id
    )
    select array_agg(child), array_agg(needs),
           (array_agg(format('job %s depends on unknown job %s', coalesce(left(p_keys[place], 100), place::text), coalesce(left(need, 100), 'null')))
               filter (where needs is null))[1]
    into v_child, v_needs, v_fault
    from resolved;
    if v_fault is not null then
        raise exception '%', v_fault using errcode = 'invalid_parameter_value';
    end if;
    perform _lock_needs(array(select unnest(v_needs) except select unnest(p_made)));
    insert into dependency (job_id, needs_job_id)
    select distinct child, needs from unnest(v_child, v_needs) as edge (child, needs);
    update job
    set state = 'waiting', unmet = waits.number
    from (
        select d.job_id, count(*) as number
        from dependency d
        join job child on child.id = d.job_id
        join job parent on parent.id = d.needs_job_id
        where d.job_id = any (p_made) and not _is_met(parent.state, child.on_dependency_failure)
        group by d.job_id
    ) as waits
    where job.id = waits.job_id;
end;
$$;

comment on function moonmind_queue._add_needs(jsonb, text[], bigint[], bigint[]) is 'Write the dependencies of new jobs.';
-- <<<
-- >>> sql/_add_origins.sql
-- _add_origins(jobs, ids, made, how) → void; notes from which job the new ones came, if from any.
--
-- Contract
--   * ids are the jobs' by place, made those that are new. The depth counts on from that job's;
--     a replay is as deep as what it replays.
-- Errors    22023 made_by names no job.
create or replace function moonmind_queue._add_origins(p_jobs jsonb, p_ids bigint[], p_made bigint[], p_how text)
returns void
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_unknown bigint;
begin
    select (job ->> 'made_by')::bigint into v_unknown
    from jsonb_array_elements(p_jobs) as job
    where job ->> 'made_by' is not null
      and not exists (select from job as made where made.id = (job ->> 'made_by')::bigint)
    limit 1;
    if found then
        raise exception 'made_by names job %, which does not exist', v_unknown using errcode = 'invalid_parameter_value';
    end if;

    insert into origin (job_id, from_job_id, how, depth)
    select p_ids[place], named.id, p_how, coalesce(source.depth, 0) + case p_how when 'replay' then 0 else 1 end
    from jsonb_array_elements(p_jobs) with ordinality as given (job, place)
    cross join lateral (select (job ->> 'made_by')::bigint) as named (id)
    left join origin as source on source.job_id = named.id
    where named.id is not null and p_ids[place] = any (p_made)
    order by place
    on conflict do nothing;  -- a key may stand twice in one call; the first is the job
end;
$$;

comment on function moonmind_queue._add_origins(jsonb, bigint[], bigint[], text) is 'Note from which job others came.';
-- <<<
-- >>> sql/_add_usage.sql
-- _add_usage(new, attempt, lane, model, day) → void; new tokens of an attempt, added to it and to the day.
--
-- Locks     the rows of the attempt and of the day.
create or replace function moonmind_queue._add_usage(
    p_new     moonmind_queue.usage_thread,
    p_attempt integer,
    p_lane    moonmind_queue.lane,
    p_model   text,
    p_day     date
)
returns void
language plpgsql
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
as $$
begin
    if greatest(p_new.input_tokens, p_new.cached_input_tokens, p_new.output_tokens, p_new.reasoning_tokens) = 0 then
        return;
    end if;
    insert into usage as known (job_id, token, model, day, attempt, input_tokens, cached_input_tokens, output_tokens, reasoning_tokens)
    values (
        p_new.job_id, p_new.token, p_model, p_day, p_attempt,
        p_new.input_tokens, p_new.cached_input_tokens, p_new.output_tokens, p_new.reasoning_tokens
    )
    on conflict (job_id, token, model, day) do update
    set input_tokens = known.input_tokens + excluded.input_tokens,
        cached_input_tokens = known.cached_input_tokens + excluded.cached_input_tokens,
        output_tokens = known.output_tokens + excluded.output_tokens,
        reasoning_tokens = known.reasoning_tokens + excluded.reasoning_tokens;
    insert into usage_day as known (day, agent, kind, repository, model, input_tokens, cached_input_tokens, output_tokens, reasoning_tokens)
    values (
        p_day, p_lane.agent, p_lane.kind, p_lane.repository, p_model,
        p_new.input_tokens, p_new.cached_input_tokens, p_new.output_tokens, p_new.reasoning_tokens
    )
    on conflict (day, agent, kind, repository, model) do update
    set input_tokens = known.input_tokens + excluded.input_tokens,
        cached_input_tokens = known.cached_input_tokens + excluded.cached_input_tokens,
        output_tokens = known.output_tokens + excluded.output_tokens,
        reasoning_tokens = known.reasoning_tokens + excluded.reasoning_tokens;
end;
$$;

comment on function moonmind_queue._add_usage(moonmind_queue.usage_thread, integer, moonmind_queue.lane, text, date) is 'Add tokens to an attempt and to its day.';
-- <<<
-- >>> sql/_apply_changes.sql
-- _apply_changes(jobs) → the ids of the jobs that said something else than these, and now say it.
--
-- Locks     the jobs are locked by the caller.
-- Events    updated
create or replace function moonmind_queue._apply_changes(p_jobs jsonb)
returns bigint[]
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_change  record;
    v_job     job;
    v_changed bigint[] := '{}';
begin
    for v_change in select * from _task_changes(p_jobs) loop
        -- Read only now: a change before this one may have made it wait.
        select * into v_job from job where id = v_change.job_id;
        perform _redefine(v_job, v_change.wanted, v_change.needs, v_change.changed);
        v_changed := v_changed || v_change.job_id;
    end loop;
    return v_changed;
end;
$$;

comment on function moonmind_queue._apply_changes(jsonb) is 'Redefine the jobs that seeding changes.';
-- <<<
-- >>> sql/_backoff.sql
-- _backoff(kind, attempt) → how long a job rests after this attempt failed.
--
-- Contract
--   * base * 2^(attempt-1), at most cap, spread by jitter; the kind's row, else that of '*'.
create or replace function moonmind_queue._backoff(p_kind text, p_attempt integer)
returns interval
language sql
set search_path = moonmind_queue, pg_temp
as $$
    select make_interval(secs =>
        least(
            extract(epoch from base)::double precision * power(2, least(greatest(p_attempt, 1), 30) - 1),
            extract(epoch from cap)::double precision
        ) * (1 + jitter * (2 * random() - 1)))
    from backoff
    where kind in (p_kind, '*')
    order by kind = '*'
    limit 1;
$$;

comment on function moonmind_queue._backoff(text, integer) is 'The rest after a failed attempt.';
-- <<<
-- >>> sql/_block_gone.sql
-- _block_gone(jobs, dag) → the ids of tasks of the DAG that are not among these jobs and are blocked for that.
--
-- Contract
--   * What is held, has ended or is blocked for another reason stays as it is.
-- Locks     the tasks are locked by the caller.
-- Events    removed
create or replace function moonmind_queue._block_gone(p_jobs jsonb, p_dag text)
returns bigint[]
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_job  job;
    v_gone bigint[] := '{}';
begin
    for v_job in
        select job.*
        from job
        join dag_task on dag_task.job_id = job.id
        where dag_task.dag = p_dag
          and job.key not in (select wanted ->> 'key' from jsonb_array_elements(p_jobs) as wanted)
          and job.state in ('waiting', 'queued')
        order by job.id
    loop
        if v_job.state = 'queued' then
            perform _withdraw(v_job);
        end if;
        perform _end(v_job.id, 'blocked', format('not in DAG %s any more', p_dag), 'removed', 'warn');
        v_gone := v_gone || v_job.id;
    end loop;
    update dag_task set gone = true where job_id = any (v_gone);
    return v_gone;
end;
$$;

comment on function moonmind_queue._block_gone(jsonb, text) is 'Block tasks that their DAG has lost.';
-- <<<
-- >>> sql/_cancel_doomed.sql
-- _cancel_doomed(jobs) → void; cancels those new jobs that wished to be when a job they need had failed.
--
-- Locks     the jobs are the caller's own.
-- Events    cancelled
create or replace function moonmind_queue._cancel_doomed(p_job_ids bigint[])
returns void
language plpgsql
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set enable_hashjoin = off
set max_parallel_workers_per_gather = 0
set enable_mergejoin = off
as $$
declare
    v_doomed record;
begin
    for v_doomed in
        select job.id, min(needed.id) as needs, (array_agg(needed.state order by needed.id))[1] as state
        from job
        join dependency on dependency.job_id = job.id
        join job as needed on needed.id = dependency.needs_job_id
        where job.id = any (p_job_ids)
          and job.state = 'waiting'
          and job.on_dependency_failure = 'cancel'
          and needed.state in ('failed', 'dead_letter', 'cancelled')
        group by job.id
        order by job.id
    loop
        if exists (select from job where id = v_doomed.id and state = 'waiting') then  -- not with one before it
            perform _end(v_doomed.id, 'cancelled', format('needs job %s, which is %s', v_doomed.needs, v_doomed.state),
                         'cancelled', 'warn');
        end if;
    end loop;
end;
$$;

comment on function moonmind_queue._cancel_doomed(bigint[]) is 'Cancel new jobs whose dependency has failed already.';
-- <<<
-- >>> sql/_capabilities.sql
-- _capabilities(names) → the names trimmed, in lower case, each once, in order; null is none.
--
-- Contract
--   * Jobs and workers are compared in this form, so case and surrounding blanks never matter.
create or replace function moonmind_queue._capabilities(p_names text[])
returns text[]
language plpgsql
immutable
set search_path = moonmind_queue, pg_temp
as $$
begin
    if cardinality(p_names) > 0 then
        return coalesce(
            (
                select array_agg(distinct name order by name)
                from (select lower(btrim(name)) as name from unnest(p_names) as given (name)) as tidy
                where name <> ''
            ),
            '{}'
        );
    end if;
    return '{}';
end;
$$;

comment on function moonmind_queue._capabilities(text[]) is 'Capabilities in the form in which they are compared.';
-- <<<
-- >>> sql/_charge.sql
-- _charge(jobs) → void, or an error: the login's allowance must admit these jobs, which it has just made.
--
-- Contract
--   * What may follow them is tried out by the caller, and so is charged with them: a job is refused
--     when all that it may bring would be too much. What then follows is counted and never refused.
-- Locks     the login's row in allowance, so that calls of one login count one after the other.
-- Errors    MQ004
create or replace function moonmind_queue._charge(p_job_ids bigint[])
returns void
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_now     constant timestamptz := _now();
    v_allowed allowance;
    v_rule    policy;
    v_fault   text;
    v_used    record;
begin
    select * into strict v_allowed from allowance where role = session_user for update;
    delete from enqueued
    where role = session_user
      and at <= v_now - interval '1 day'
      and not exists (select from job where id = job_id and finished_at is null);
    insert into enqueued (role, job_id, at)
    select session_user, id, v_now from unnest(p_job_ids) as id;

    v_rule := jsonb_populate_record(null::policy, to_jsonb(v_allowed));
    select format('agent %s, kind %s, %s', lane.agent, lane.kind, coalesce('repository ' || nullif(lane.repository, ''), 'no repository'))
    into v_fault
    from job
    join lane on lane.id = job.lane_id
    where job.id = any (p_job_ids) and not _permits(v_rule, lane)
    order by job.id
    limit 1;
    if found then
        raise exception 'the allowance of % does not admit a job of %', session_user, v_fault using errcode = 'MQ004';
    end if;
    if exists (select from origin where job_id = any (p_job_ids) and depth > v_allowed.max_depth) then
        raise exception 'the allowance of % admits % generations of jobs made by jobs, and this is one more', session_user, v_allowed.max_depth
            using errcode = 'MQ004';
    end if;
    select max_open, open, max_per_day, within_a_day into v_used from allowance_overview where role = session_user;
    if v_used.open > v_used.max_open then
        raise exception 'the allowance of % admits % open jobs; with these and all that may follow it would have %', session_user, v_used.max_open, v_used.open
            using errcode = 'MQ004', hint = 'wait until some have ended, or ask an operator for more';
    elsif v_used.within_a_day > v_used.max_per_day then
        raise exception 'the allowance of % admits % jobs within 24 hours; with these and all that may follow it would have %', session_user, v_used.max_per_day, v_used.within_a_day
            using errcode = 'MQ004';
    end if;
end;
$$;

comment on function moonmind_queue._charge(bigint[]) is 'Refuse new jobs that the login may not add.';
-- <<<
-- >>> sql/_check_artifact.sql
-- _check_artifact(name, content_type, size_bytes) → void, or an error: the login's policy must admit such an artifact.
--
-- Contract
--   * Parameters of a content type (charset and the like) and its case make no difference.
-- Errors    MQ004
create or replace function moonmind_queue._check_artifact(p_name text, p_content_type text, p_size_bytes bigint)
returns void
language plpgsql
stable
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_policy constant policy := _policy();
    v_type   constant text := lower(btrim(split_part(p_content_type, ';', 1)));
begin
    if v_type <> all (v_policy.content_types)
        and regexp_replace(v_type, '/.*', '/*') <> all (v_policy.content_types)
    then
        raise exception 'the policy of % admits no artifact of type %, as % is; it admits %',
            session_user, v_type, left(p_name, 100), array_to_string(v_policy.content_types, ', ')
            using errcode = 'MQ004';
    end if;
    if p_size_bytes > v_policy.artifact_max_bytes then
        raise exception 'the policy of % admits no artifact above % bytes; % has %',
            session_user, v_policy.artifact_max_bytes, left(p_name, 100), p_size_bytes
            using errcode = 'MQ004';
    end if;
end;
$$;

comment on function moonmind_queue._check_artifact(text, text, bigint) is 'Refuse artifacts that the login may not store.';
-- <<<
-- >>> sql/_check_jobs.sql
-- _check_jobs(jobs) → void, or an error that names the first job at fault by its place.
--
-- Errors    22023
create or replace function moonmind_queue._check_jobs(p_jobs jsonb)
returns void
language plpgsql
immutable
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_names constant text[] :=
        '{kind,payload,agent,name,key,priority,run_at,after,max_attempts,capabilities,timeout,expires_at,on_dependency_failure,concurrency_key,on_success,on_failure,made_by}';
    v_fault text;
begin
    if jsonb_typeof(p_jobs) is distinct from 'array' then
        raise exception 'enqueue_many needs a JSON array of objects'
            using errcode = 'invalid_parameter_value';
    end if;
    select format(
        'job %s: %s', place,
        case
            when jsonb_typeof(job) <> 'object' then 'is not an object'
            when jsonb_typeof(job -> 'after') not in ('array', 'null') then 'after is not an array'
            when jsonb_typeof(job -> 'on_success') not in ('array', 'null') then 'on_success is not an array of jobs'
            when jsonb_typeof(job -> 'on_failure') not in ('array', 'null') then 'on_failure is not an array of jobs'
            else 'unknown name ' || (select string_agg(quote_ident(left(name, 100)), ', ') from (
                select name from jsonb_object_keys(job - v_names) as name limit 5) as unknown)
                || '; there are ' || array_to_string(v_names, ', ')
        end
    ) into v_fault
    from jsonb_array_elements(p_jobs) with ordinality as given (job, place)
    where case
              when jsonb_typeof(job) <> 'object' then true
              else job - v_names <> '{}'
                  or jsonb_typeof(job -> 'after') not in ('array', 'null')
                  or jsonb_typeof(job -> 'on_success') not in ('array', 'null')
                  or jsonb_typeof(job -> 'on_failure') not in ('array', 'null')
          end
    limit 1;
    if v_fault is not null then
        raise exception '%', v_fault using errcode = 'invalid_parameter_value';
    end if;
end;
$$;

comment on function moonmind_queue._check_jobs(jsonb) is 'Refuse what enqueue_many cannot read.';
-- <<<
-- >>> sql/_check_lease.sql
-- _check_lease(lease) → void, or an error.
--
-- Errors    22023 a lease that would be lost at birth or never.
create or replace function moonmind_queue._check_lease(p_lease interval)
returns void
language plpgsql
immutable
set search_path = moonmind_queue, pg_temp
as $$
begin
    if p_lease is null or p_lease <= interval '0' or p_lease > interval '1 day' then
        raise exception 'a lease must be longer than 0 and at most a day, not %', p_lease
            using errcode = 'invalid_parameter_value';
    end if;
end;
$$;

comment on function moonmind_queue._check_lease(interval) is 'Refuse a lease that cannot work.';
-- <<<
-- >>> sql/_check_no_circle.sql
-- _check_no_circle(tasks) → void, or an error: tasks that depend on each other in a circle.
--
-- Errors    22023 with the path, for example: a -> b -> a.
create or replace function moonmind_queue._check_no_circle(p_tasks jsonb)
returns void
language plpgsql
immutable
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_ids      text[];
    v_places   jsonb;      -- id → its place
    v_children integer[];  -- edge → the task, and
    v_parents  integer[];  --        the task that it needs
begin
    select coalesce(array_agg(task ->> 'id' order by place), '{}'), jsonb_object_agg(task ->> 'id', place)
    into v_ids, v_places
    from jsonb_array_elements(p_tasks) with ordinality as element (task, place);
    select array_agg(place order by place, parent), array_agg(parent order by place, parent)
    into v_children, v_parents
    from jsonb_array_elements(p_tasks) with ordinality as element (task, place)
    cross join lateral (
        select distinct (v_places ->> need)::integer as parent
        from jsonb_array_elements_text(coalesce(task -> 'deps', '[]')) as need
    ) as needed;
    perform _order_jobs(v_ids, v_children, v_parents);
end;
$$;

comment on function moonmind_queue._check_no_circle(jsonb) is 'Refuse tasks that depend on each other in a circle.';
-- <<<
-- >>> sql/_check_policy.sql
-- _check_policy(jobs, tokens) → void, or an error: the login's policy must admit every one of these held jobs.
--
-- Called for every write of a lease holder, for a policy may be narrowed while a job is held.
-- Errors    MQ004
create or replace function moonmind_queue._check_policy(p_job_ids bigint[], p_tokens bigint[])
returns void
language plpgsql
stable
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_refused constant bigint[] := _not_admitted(p_job_ids, p_tokens);
begin
    if v_refused <> '{}' then
        raise exception 'the policy of % does not admit job %', session_user, v_refused[1] using errcode = 'MQ004';
    end if;
end;
$$;

comment on function moonmind_queue._check_policy(bigint[], bigint[]) is 'Refuse jobs that the login may not hold.';
-- <<<
-- >>> sql/_check_reader.sql
-- _check_reader(cursor, limit) → void; refuses what cannot be read on with.
--
-- Errors    22023 not a cursor, a limit below 1; 25000 not read committed, or a standby.
create or replace function moonmind_queue._check_reader(p_cursor text, p_limit integer)
returns void
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
begin
    if coalesce(p_cursor, '') !~ '^\{[\[(\d,)\]]+,\)\}( \d+ [-\d/,]*)?$' then
        raise exception 'event_cursor() or the row before gives a cursor; % is none', coalesce(quote_literal(left(p_cursor, 200)), 'null')
            using errcode = 'invalid_parameter_value';
    end if;
    if coalesce(p_limit, 0) < 1 then
        raise exception 'read_events needs a limit of at least 1, not %', p_limit
            using errcode = 'invalid_parameter_value';
    end if;
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'reading events with a cursor needs a transaction that is read committed'
            using errcode = 'invalid_transaction_state';
    end if;
    if pg_is_in_recovery() then
        raise exception 'reading events with a cursor needs the primary server: this is a standby'
            using errcode = 'invalid_transaction_state';
    end if;
end;
$$;

comment on function moonmind_queue._check_reader(text, integer) is 'Refuse a cursor that cannot be read on with.';
-- <<<
-- >>> sql/_check_tasks.sql
-- _check_tasks(tasks) → void, or an error that names the first task at fault by its place and id.
--
-- Contract
--   * Each is an object with an id of its own, of 1 to 500 characters, and an agent. Its deps are
--     ids of tasks beside it, none its own; its payload is an object, whose kind is a string.
-- Errors    22023
create or replace function moonmind_queue._check_tasks(p_tasks jsonb)
returns void
language plpgsql
immutable
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_names constant text[] := '{id,name,agent,deps,payload,priority,max_attempts,timeout,capabilities}';
    v_fault text;
begin
    if jsonb_typeof(p_tasks) is distinct from 'array' then
        raise exception 'a DAG needs a JSON array of tasks' using errcode = 'invalid_parameter_value';
    end if;
    with given as materialized (
        select task, place, task ->> 'id' as id, coalesce(task -> 'deps', '[]') as deps,
               coalesce(task -> 'payload', '{}') as payload
        from jsonb_array_elements(p_tasks) with ordinality as element (task, place)
    ),
    judged as (
        select place, id, case
            when jsonb_typeof(task) <> 'object' then 'is not an object'
            when jsonb_typeof(task -> 'id') is distinct from 'string' or id !~ '\S' or length(id) > 500
                then 'needs an id of 1 to 500 characters'
            when jsonb_typeof(task -> 'agent') is distinct from 'string' then 'needs an agent'
            when jsonb_typeof(deps) <> 'array' then 'deps is not an array'
            when jsonb_typeof(payload) <> 'object' then 'payload is not an object'
            when coalesce(jsonb_typeof(payload -> 'kind'), 'string') <> 'string' then 'payload.kind is not a string'
            when task - v_names <> '{}' then
                'unknown name ' || (select string_agg(quote_ident(left(name, 100)), ', ') from (
                    select name from jsonb_object_keys(task - v_names) as name limit 5) as unknown)
                || '; there are ' || array_to_string(v_names, ', ')
            when place > min(place) over (partition by id) then 'is there twice'
        end as fault
        from given
    ),
    astray as (
        select given.place, given.id, case
            when jsonb_typeof(need) <> 'string' then 'deps has something that is not an id: ' || left(need::text, 100)
            else format('depends on unknown task %s', left(need #>> '{}', 100))
        end as fault
        from given
        cross join lateral jsonb_array_elements(case jsonb_typeof(deps) when 'array' then deps else '[]' end) as need
        where jsonb_typeof(need) <> 'string' or need #>> '{}' not in (select id from given where id is not null)
    )
    select format('task %s%s: %s', place, ' (' || left(id, 100) || ')', fault) into v_fault
    from (select * from judged union all select * from astray) as found
    where fault is not null
    order by place
    limit 1;
    if v_fault is not null then
        raise exception '%', v_fault using errcode = 'invalid_parameter_value';
    end if;
    perform _check_no_circle(p_tasks);
end;
$$;

comment on function moonmind_queue._check_tasks(jsonb) is 'Refuse what seed_dag cannot read.';
-- <<<
-- >>> sql/_check_template.sql
-- _check_template(schedule, job) → void, or the error that enqueueing the job would raise.
--
-- Contract
--   * Enqueues the job and takes that back, so whatever enqueue refuses is refused, in its words.
--     Nothing is left but a gap in the ids; the notification is taken back too.
-- Errors    22023 not an object, a name that an occurrence brings; those of enqueue_many.
create or replace function moonmind_queue._check_template(p_schedule text, p_job jsonb)
returns void
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_brought constant text[] := '{key,run_at,after,expires_at}';
    v_given   text;
begin
    if jsonb_typeof(p_job) is distinct from 'object' then
        raise exception 'schedule %: the job is not an object with the parameters of enqueue', p_schedule
            using errcode = 'invalid_parameter_value';
    end if;
    select string_agg(name, ', ' order by name) into v_given
    from jsonb_object_keys(p_job) as name
    where name = any (v_brought);
    if v_given is not null then
        raise exception 'schedule %: its job cannot have %; each occurrence is a job of its own', p_schedule, v_given
            using errcode = 'invalid_parameter_value';
    end if;

    begin
        perform enqueue_many(jsonb_build_array(p_job));
        raise sqlstate 'MQ999';  -- a way back, and no error: it never leaves this block
    exception when sqlstate 'MQ999' then
        null;
    end;
end;
$$;

comment on function moonmind_queue._check_template(text, jsonb) is 'Refuse a job that could not be enqueued.';
-- <<<
-- >>> sql/_check_text.sql
-- _check_text(name, text) → void, or an error: what a history keeps of a text is bounded.
--
-- Errors    22023 above 64 KiB.
create or replace function moonmind_queue._check_text(p_name text, p_text text)
returns void
language plpgsql
immutable
set search_path = moonmind_queue, pg_temp
as $$
begin
    if octet_length(p_text) > 65536 then
        raise exception '% has % bytes; at most 64 KiB are kept', p_name, octet_length(p_text)
            using errcode = 'invalid_parameter_value';
    end if;
end;
$$;

comment on function moonmind_queue._check_text(text, text) is 'Refuse a text that is too long.';
-- <<<
-- >>> sql/_check_worker.sql
-- _check_worker(worker, policy) → void, or an error: the name is one that can be notified and that the policy lets it use.
--
-- Errors    22023 blank or above 200 characters; MQ004 a name that the login's policy does not list.
create or replace function moonmind_queue._check_worker(p_worker text, p_policy moonmind_queue.policy)
returns void
language plpgsql
stable
set search_path = moonmind_queue, pg_temp
as $$
begin
    if coalesce(p_worker, '') !~ '\S' or length(p_worker) > 200 then
        raise exception 'a worker needs a name of at most 200 characters'
            using errcode = 'invalid_parameter_value';
    end if;
    if p_worker <> all (p_policy.workers) then
        raise exception 'the policy of % does not let it work as %', session_user, p_worker using errcode = 'MQ004';
    end if;
end;
$$;

comment on function moonmind_queue._check_worker(text, moonmind_queue.policy) is 'Refuse the name of a worker that cannot be used.';
-- <<<
-- >>> sql/_classify.sql
-- _classify(source, text) → the rule that says what this failure means; null where none does.
--
-- Contract
--   * The first rule of the source, or of *, whose pattern the text matches, by place and name.
create or replace function moonmind_queue._classify(p_source text, p_text text)
returns moonmind_queue.failure_rule
language plpgsql
stable
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_rule failure_rule;
begin
    select * into v_rule
    from failure_rule
    where source in (p_source, '*') and p_text ~* pattern
    order by place, name
    limit 1;
    return v_rule;
end;
$$;

comment on function moonmind_queue._classify(text, text) is 'What a failure means.';
-- <<<
-- >>> sql/_dependents.sql
-- _dependents(ended, failed) → the jobs that change when these end: ended in whatever way, failed without success.
--
-- Contract
--   * Of any job that ends, its direct dependents. Of one that fails, also what the dependents
--     asked for: who waits and said cancel takes its own dependents along, and so on.
--   * Whatever their state: one that is just coming back to waiting must be locked to see.
create or replace function moonmind_queue._dependents(p_ended bigint[], p_failed bigint[] default '{}')
returns bigint[]
language plpgsql
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set enable_hashjoin = off
set max_parallel_workers_per_gather = 0
set enable_mergejoin = off
as $$
begin
    if not exists (select from dependency where needs_job_id = any (p_ended || p_failed)) then
        return '{}';
    end if;
    return array(
        with recursive concerned as (
            select id, true as ends from unnest(p_failed) as id
            union
            select edge.job_id, edge.ends
            from concerned
            cross join lateral (  -- a fence: from what ends to its dependents, whatever statistics say
                select dependency.job_id,
                       job.state = 'waiting' and job.on_dependency_failure = 'cancel' as ends
                from dependency
                join job on job.id = dependency.job_id
                where dependency.needs_job_id = concerned.id
                  and job.on_dependency_failure <> 'wait'
                offset 0
            ) as edge
            where concerned.ends
        )
        select dependency.job_id from dependency where needs_job_id = any (p_ended)
        union
        select id from concerned where id <> all (p_failed)
    );
end;
$$;

comment on function moonmind_queue._dependents(bigint[], bigint[]) is 'The jobs that the end of others concerns.';
-- <<<
-- >>> sql/_drop_months.sql
-- _drop_months(table) → how many partitions were dropped: of months that are over and hold no row any more.
--
-- Contract
--   * A month goes when the last job has been pruned that it held a row of, so nothing of a job
--     that exists is ever lost.
--   * Waits 50 ms at most for whoever uses the table; then that is left for next time.
-- Locks     the partition against writers while it is read; then the table, exclusively, until
--           the transaction ends.
create or replace function moonmind_queue._drop_months(p_table text)
returns integer
language plpgsql
set search_path = moonmind_queue, pg_temp
set lock_timeout = '50 ms'
as $$
declare
    v_dropped integer := 0;
    v_name    text;
    v_used    boolean;
begin
    for v_name in
        select relname
        from pg_inherits
        join pg_class on pg_class.oid = inhrelid
        where inhparent = format('moonmind_queue.%I', p_table)::regclass
          and relname ~ ('^' || p_table || '_\d{4}_\d{2}$')
          and to_date(right(relname, 7), 'YYYY_MM') + interval '1 month 1 day' < _now() at time zone 'UTC'
        order by relname
    loop
        execute format('select exists (select from moonmind_queue.%I)', v_name) into v_used;
        continue when v_used;
        begin
            execute format('lock table moonmind_queue.%I in share mode', v_name);
            execute format('select exists (select from moonmind_queue.%I)', v_name) into v_used;
            if not v_used then
                execute format('drop table moonmind_queue.%I', v_name);
                v_dropped := v_dropped + 1;
            end if;
        exception when lock_not_available or deadlock_detected then
            return v_dropped;
        end;
    end loop;
    return v_dropped;
end;
$$;

comment on function moonmind_queue._drop_months(text) is 'Drop the partitions that are empty and over.';
-- <<<
-- >>> sql/_end.sql
-- _end(job, state, error, type, level, worker, data) → the state; ends a job, or blocks it, with one event.
--
-- Contract
--   * The way into blocked, failed, dead_letter and cancelled; success has complete_many().
--   * Any lease is gone. Dependents of a job that ended do what they said for this case; what it
--     lists in on_failure is enqueued when it has failed, not when somebody cancelled it.
-- Locks     the job is locked by the caller; its dependents, in id order.
-- Notifies  moonmind_queue
create or replace function moonmind_queue._end(
    p_job_id bigint,
    p_state  text,
    p_error  text,
    p_type   text,
    p_level  text,
    p_worker text default session_user,
    p_data   jsonb default null
)
returns text
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_now constant timestamptz := _now();
begin
    delete from lease where job_id = p_job_id;
    update job
    set state = p_state,
        error = p_error,
        finished_at = case when p_state <> 'blocked' then v_now end,
        updated_at = v_now
    where id = p_job_id;
    perform _log(p_job_id, p_type, p_error, p_level, p_worker, p_data);
    if p_state <> 'blocked' then
        perform _fail_dependents(p_job_id);
    end if;
    if p_state in ('failed', 'dead_letter') then
        perform _follow_up(array[p_job_id], 'failure');
    end if;
    perform _make_room();
    return p_state;
end;
$$;

comment on function moonmind_queue._end(bigint, text, text, text, text, text, jsonb) is 'End or block a locked job.';
-- <<<
-- >>> sql/_enqueue_occurrences.sql
-- _enqueue_occurrences(schedule, occurrences) → the ids of the jobs that were made, in that order.
--
-- Contract
--   * One job for each occurrence, due since its instant; none where the key is taken: a schedule
--     that was removed and added again does not repeat itself.
--   * Whoever made the schedule had the right to: the worker that enqueues is not charged.
--   * Without a name of its own a job is called after its schedule.
-- Locks     the schedule is locked by the caller.
-- Notifies  moonmind_queue
-- Events    created, scheduled
create or replace function moonmind_queue._enqueue_occurrences(
    p_schedule moonmind_queue.schedule,
    p_due      timestamptz[]
)
returns bigint[]
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_at   text[];  -- the instants in UTC
    v_jobs jsonb;
    v_ids  bigint[] := '{}';
begin
    select array_agg(named.at order by due.at),
           jsonb_agg(
               jsonb_build_object('name', p_schedule.name) || p_schedule.job
               || jsonb_build_object('key', named.key, 'run_at', named.at)
               order by due.at
           )
    into v_at, v_jobs
    from unnest(p_due) as due (at)
    cross join lateral (
        select iso, format('schedule/%s/%s', p_schedule.name, iso)
        from to_char(due.at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') as iso
    ) as named (at, key)
    where not exists (select from job where job.key = named.key);
    if v_jobs is null then
        return v_ids;
    end if;

    select array_agg(id order by place) into v_ids
    from _add_jobs(v_jobs, false) with ordinality as made (id, place);
    perform _log(id, 'scheduled', format('for %s by schedule %s', at, p_schedule.name),
                 p_data => jsonb_build_object('schedule', p_schedule.name, 'occurrence', at))
    from unnest(v_ids, v_at) as made (id, at);
    return v_ids;
end;
$$;

comment on function moonmind_queue._enqueue_occurrences(moonmind_queue.schedule, timestamptz[])
is 'Make the jobs of a schedule''s occurrences.';
-- <<<
-- >>> sql/_event_writers.sql
-- _event_writers() → the transactions, of this database, that may have written events and have not ended.
create or replace function moonmind_queue._event_writers()
returns text[]
language sql
volatile
set search_path = moonmind_queue, pg_temp
as $$
    select coalesce(array_agg(distinct virtualtransaction), '{}')
    from pg_locks
    where locktype = 'relation'
      and database = (select oid from pg_database where datname = current_database())
      and relation = 'moonmind_queue.event'::regclass
      and mode = 'RowExclusiveLock'
      and granted;
$$;

comment on function moonmind_queue._event_writers() is 'Who may be writing events.';
-- <<<
-- >>> sql/_expire.sql
-- _expire(job) → cancelled; the job has become pointless before anybody got to it.
--
-- Locks     the job is locked by the caller, and is in neither ready nor scheduled.
-- Events    cancelled
create or replace function moonmind_queue._expire(p_job moonmind_queue.job)
returns text
language sql
set search_path = moonmind_queue, pg_temp
as $$
    select _end(
        p_job.id, 'cancelled', to_char(p_job.expires_at at time zone 'UTC', '"expired at" YYYY-MM-DD HH24:MI:SS "UTC"'), 'cancelled', 'warn',
        p_data => jsonb_build_object('expires_at', p_job.expires_at)
    );
$$;

comment on function moonmind_queue._expire(moonmind_queue.job) is 'Cancel a job that has become pointless.';
-- <<<
-- >>> sql/_expire_due.sql
-- _expire_due(limit) → the jobs that have become pointless, now cancelled.
--
-- Contract
--   * An attempt that is under way goes on; the job is cancelled should it come back.
--   * Jobs of a paused agent stay as they are.
-- Locks     the jobs and their dependents, skip locked.
-- Events    cancelled
create or replace function moonmind_queue._expire_due(p_limit integer)
returns table (job_id bigint, state text)
language plpgsql
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set enable_hashjoin = off
set max_parallel_workers_per_gather = 0
set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
    v_now constant timestamptz := _now();
    v_job job;
begin
    for v_job in
        with due as materialized (
            select job_id from expiry where expires_at <= v_now order by expires_at, job_id
        )
        select mine.*
        from due
        cross join lateral (  -- a fence: from each time to its job, whatever statistics say
            select * from job where id = due.job_id and not _is_paused(agent, 'operator')
            for update skip locked
        ) as mine
        limit p_limit
    loop
        select * into v_job from job where id = v_job.id;  -- one before it may have taken it along
        if v_job.state in ('waiting', 'queued', 'blocked') then
            continue when not _lock_dependents(v_job.id, false);
            if v_job.state = 'queued' then
                perform _withdraw(v_job);
            end if;
            job_id := v_job.id;
            state := _expire(v_job);
            return next;
        end if;
        delete from expiry where expires_at = v_job.expires_at and job_id = v_job.id;
    end loop;
end;
$$;

comment on function moonmind_queue._expire_due(integer) is 'Cancel jobs that have become pointless.';
-- <<<
-- >>> sql/_fail_dependents.sql
-- _fail_dependents(job) → void; the job has ended without success: what its dependents asked for happens.
--
-- Contract
--   * Those that wait and said cancel are cancelled, with their own dependents that said so.
--   * Those that wait and said run count it, and each of the cancelled, as met.
--   * Those that said wait go on waiting, visible in blocked_job.
-- Locks     the dependents, in id order.
-- Events    cancelled; ready
create or replace function moonmind_queue._fail_dependents(p_job_id bigint)
returns void
language plpgsql
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set enable_hashjoin = off
set max_parallel_workers_per_gather = 0
set enable_mergejoin = off
as $$
declare
    v_now    constant timestamptz := _now();
    v_state  text;
    v_doomed bigint[];
begin
    if not exists (select from dependency where needs_job_id = p_job_id) then
        return;
    end if;
    perform _lock_dependents(p_job_id);
    select state into v_state from job where id = p_job_id;
    v_doomed := _dependents('{}', array[p_job_id]);
    v_doomed := array(
        select id
        from job
        where id = any (v_doomed)
          and state = 'waiting' and on_dependency_failure = 'cancel'
    );

    with reason as materialized (
        select edge.job_id, min(ended.id) as needs
        from unnest(p_job_id || v_doomed) as ended (id)
        cross join lateral (select job_id from dependency where needs_job_id = ended.id offset 0) as edge
        group by edge.job_id
    ),
    cancelled as (
        update job
        set state = 'cancelled',
            error = format('needs job %s, which is %s', needs, case needs when p_job_id then v_state else 'cancelled' end),
            finished_at = v_now,
            updated_at = v_now,
            event_seq = event_seq + 1
        from reason
        where job.id = reason.job_id and state = 'waiting' and on_dependency_failure = 'cancel'
        returning id, event_seq, error
    )
    insert into event (job_id, seq, at, type, level, message)
    select id, event_seq, v_now, 'cancelled', 'warn', error from cancelled;

    perform _release_dependents(p_job_id || v_doomed);
end;
$$;

comment on function moonmind_queue._fail_dependents(bigint) is 'Let dependents hear that a job failed.';
-- <<<
-- >>> sql/_failures_like.sql
-- _failures_like(job, class) → how many attempts failed by this rule since a person last retried the job.
create or replace function moonmind_queue._failures_like(p_job_id bigint, p_class text)
returns bigint
language plpgsql
stable
set search_path = moonmind_queue, pg_temp
set enable_seqscan = off
set jit = off
as $$
begin
    return (
        select count(*)
        from event
        where job_id = p_job_id
          and type = 'failed'
          and data ->> 'class' = p_class
          and seq > coalesce((select max(seq) from event where job_id = p_job_id and type = 'retried'), 0)
    );
end;
$$;

comment on function moonmind_queue._failures_like(bigint, text) is 'Count an attempt''s failures of one sort.';
-- <<<
-- >>> sql/_floor.sql
-- _floor(now) → where this session's last claims ended, by lane; until when that holds; whether a full look is dear.
--
-- Contract
--   * Nothing where there is no such place, or it holds no longer: then begin at the most urgent.
--   * A time further off than 30 s was set before the clock went back, and holds no longer either.
create or replace function moonmind_queue._floor(
    p_now     timestamptz,
    out above jsonb,
    out until timestamptz,
    out dear  boolean
)
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_hint constant text := current_setting('moonmind_queue.floor', true);
begin
    above := '{}';
    dear := false;
    if v_hint = '' is not false then
        return;
    end if;
    until := v_hint::jsonb ->> 'until';
    if until > p_now and until <= p_now + interval '30 s' then
        above := v_hint::jsonb -> 'above';
        dear := v_hint::jsonb -> 'dear';
    end if;
end;
$$;

comment on function moonmind_queue._floor(timestamptz) is 'Where claims of this session go on.';
-- <<<
-- >>> sql/_follow_up.sql
-- _follow_up(jobs, event) → void; the jobs have ended with success or failure: what they list is enqueued.
--
-- Contract
--   * Once for each event: a job that is retried and ends the same way again brings nothing new.
--   * With the right of whoever enqueued the job, which was looked at then, and never refused.
-- Locks     the jobs are locked by the caller; keys in their order.
-- Notifies  moonmind_queue
-- Events    created
create or replace function moonmind_queue._follow_up(p_job_ids bigint[], p_event text)
returns void
language plpgsql
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_jobs jsonb;
    v_from bigint[];
    v_made bigint[];
begin
    select jsonb_agg(job || jsonb_build_object('made_by', job_id) order by job_id, number),
           array_agg(job_id order by job_id, number)
    into v_jobs, v_from
    from follow_up
    where job_id = any (p_job_ids) and event = p_event and made_job_id is null;
    if v_jobs is null then
        return;
    end if;
    v_made := array(
        select id from _add_jobs(v_jobs, false, p_event) with ordinality as made (id, place) order by place
    );

    update follow_up
    set made_job_id = made.id
    from (
        select job_id, v_made[row_number() over (order by job_id, number)] as id, number
        from follow_up
        where job_id = any (p_job_ids) and event = p_event and made_job_id is null
    ) as made
    where follow_up.job_id = made.job_id and follow_up.event = p_event and follow_up.number = made.number;
    insert into enqueued (role, job_id, at)
    select follow_up.role, made_job_id, _now()
    from follow_up
    join allowance on allowance.role = follow_up.role
    where job_id = any (v_from) and event = p_event and made_job_id = any (v_made)
    on conflict do nothing;
end;
$$;

comment on function moonmind_queue._follow_up(bigint[], text) is 'Enqueue what jobs that have ended list.';
-- <<<
-- >>> sql/_follow_ups.sql
-- _follow_ups(jobs) → the jobs that these list in on_success and on_failure, and those in turn.
--
-- Contract
--   * place is of the job in the array, depth counts from 1, event is success or failure, number
--     is the place in that list. Of levels only the first six are looked at: five are allowed.
create or replace function moonmind_queue._follow_ups(p_jobs jsonb)
returns table (place bigint, depth integer, event text, number bigint, job jsonb)
language sql
immutable
set search_path = moonmind_queue, pg_temp
as $$
    with recursive listed as (
        select place, 0 as depth, null::text as event, null::bigint as number, job
        from jsonb_array_elements(p_jobs) with ordinality as given (job, place)
        union all
        select listed.place, listed.depth + 1, lists.event, followers.number, followers.job
        from listed
        cross join lateral (
            values ('success', listed.job -> 'on_success'), ('failure', listed.job -> 'on_failure')
        ) as lists (event, jobs)
        cross join lateral jsonb_array_elements(
            case jsonb_typeof(lists.jobs) when 'array' then lists.jobs else '[]' end
        ) with ordinality as followers (job, number)
        where listed.depth < 6
    )
    select place, depth, event, number, job from listed where depth > 0 order by place, depth;
$$;

comment on function moonmind_queue._follow_ups(jsonb) is 'All that jobs may bring when they end.';
-- <<<
-- >>> sql/_hold_dependents.sql
-- _hold_dependents(job) → void; a job that ended will run again: who counted it as met waits for it.
--
-- Contract
--   * Dependents that are leased, blocked or final are left alone; they took what there was.
-- Locks     every dependent, in id order.
-- Errors    40001 see _lock_late().
-- Events    waiting, for one that was queued.
create or replace function moonmind_queue._hold_dependents(p_job moonmind_queue.job)
returns void
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_ids constant bigint[] := array(select job_id from dependency where needs_job_id = p_job.id);
    v_dependent job;
begin
    if v_ids = '{}' then
        return;
    end if;
    perform _lock_late(v_ids, array[p_job.id]);
    for v_dependent in
        select job.*
        from job
        where id = any (v_ids) and _is_met(p_job.state, on_dependency_failure)
        order by id
    loop
        if v_dependent.state = 'queued' then
            perform _withdraw(v_dependent);
            perform _log(v_dependent.id, 'waiting', format('job %s will run again', p_job.id));
        end if;
        update job
        set state = 'waiting', unmet = unmet + 1, updated_at = _now()
        where id = v_dependent.id and state in ('waiting', 'queued');
    end loop;
end;
$$;

comment on function moonmind_queue._hold_dependents(moonmind_queue.job) is 'Make dependents wait again for a job that will run again.';
-- <<<
-- >>> sql/_is_met.sql
-- _is_met(state, policy) → whether a needed job in this state lets the one that needs it run.
--
-- The one place that says so. No search_path is pinned: it names nothing that one could replace,
-- and so the planner puts it into the statements that use it.
create or replace function moonmind_queue._is_met(p_state text, p_on_dependency_failure text)
returns boolean
language sql
immutable
as $$
    select coalesce(
        p_state = 'succeeded'
        or p_on_dependency_failure = 'run' and p_state in ('failed', 'dead_letter', 'cancelled'),
        false
    );
$$;

comment on function moonmind_queue._is_met(text, text) is 'Whether a dependency in this state is met.';
-- <<<
-- >>> sql/_is_paused.sql
-- _is_paused(agent, cause) → whether jobs of this agent are not to be claimed now.
--
-- Contract
--   * By a pause of the agent or of all; with a cause, only by one of that cause.
create or replace function moonmind_queue._is_paused(p_agent text, p_cause text default null)
returns boolean
language plpgsql
stable
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
as $$
begin
    return exists (
        select from pause
        where agent in (p_agent, '*')
          and (p_cause is null or cause = p_cause)
          and (until is null or until > _now())
    );
end;
$$;

comment on function moonmind_queue._is_paused(text, text) is 'Whether an agent is paused.';
-- <<<
-- >>> sql/_keep_floor.sql
-- _keep_floor(above, until, dear) → void; claims of this session go on there, and look at everything again then.
create or replace function moonmind_queue._keep_floor(p_above jsonb, p_until timestamptz, p_dear boolean)
returns void
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
begin
    perform set_config(
        'moonmind_queue.floor', jsonb_build_object('above', p_above, 'until', p_until, 'dear', p_dear)::text, false
    );
end;
$$;

comment on function moonmind_queue._keep_floor(jsonb, timestamptz, boolean) is 'Say where claims of this session go on.';
-- <<<
-- >>> sql/_lane.sql
-- _lane(agent, kind, capabilities, payload, concurrency_key) → the id of their lane, made when it is new.
--
-- Errors    22023 no kind or agent, or one of them or a capability above 200 characters.
create or replace function moonmind_queue._lane(
    p_agent           text,
    p_kind            text,
    p_capabilities    text[],
    p_payload         jsonb,
    p_concurrency_key text
)
returns integer
language plpgsql
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_capabilities constant text[] :=
        case when p_capabilities = '{}' then p_capabilities else _capabilities(p_capabilities) end;
    v_repository   constant text := case when p_payload ? 'repository' then _repository(p_payload) else '' end;
    v_key          constant text := coalesce(p_concurrency_key, '');
    v_lane         integer;
begin
    select id into v_lane
    from lane
    where agent = p_agent
      and kind = p_kind
      and capabilities = v_capabilities
      and repository = v_repository
      and concurrency_key = v_key
    order by id
    limit 1;
    if not found then
        if p_kind is null or p_agent is null
            or greatest(length(p_kind), length(p_agent), (select max(length(name)) from unnest(v_capabilities) as name)) > 200
        then
            raise exception 'a job needs a kind, an agent and capabilities of at most 200 characters each, not %, % and %',
                coalesce(left(p_kind, 100), 'null'), coalesce(left(p_agent, 100), 'null'), left(v_capabilities::text, 100)
                using errcode = 'invalid_parameter_value';
        end if;
        insert into lane (agent, kind, capabilities, repository, concurrency_key)
        values (p_agent, p_kind, v_capabilities, v_repository, v_key)
        returning id into v_lane;
    end if;
    return v_lane;
end;
$$;

comment on function moonmind_queue._lane(text, text, text[], jsonb, text) is 'The lane of a job.';
-- <<<
-- >>> sql/_lanes.sql
-- _lanes(jobs) → the ids of their lanes, by place in the call; those that are new are made.
--
-- Errors    22023 no kind, or a kind, agent or capability above 200 characters, by its place; 23514
--           an agent or a kind that the table refuses.
create or replace function moonmind_queue._lanes(p_jobs jsonb)
returns integer[]
language plpgsql
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_lanes integer[];
    v_fault text;
begin
    loop
        with given as materialized (
            select place, coalesce(agent, 'codex') as agent, kind,
                   case when capabilities <> '{}' then _capabilities(capabilities) else '{}' end as capabilities,
                   case when payload ? 'repository' then _repository(payload) else '' end as repository,
                   coalesce(concurrency_key, '') as concurrency_key
            from rows from (
                jsonb_to_recordset(p_jobs) as (
                    agent text, kind text, capabilities text[], payload jsonb, concurrency_key text
                )
            ) with ordinality as job (agent, kind, capabilities, payload, concurrency_key, place)
        ),
        known as (
            select wanted.*, (
                select min(lane.id)
                from lane
                where lane.agent = wanted.agent
                  and lane.kind = wanted.kind
                  and lane.capabilities = wanted.capabilities
                  and lane.repository = wanted.repository
                  and lane.concurrency_key = wanted.concurrency_key
            ) as id
            from (select distinct agent, kind, capabilities, repository, concurrency_key from given) as wanted
        )
        select array_agg(known.id order by given.place) into v_lanes
        from given
        left join known using (agent, kind, capabilities, repository, concurrency_key);
        exit when array_position(v_lanes, null) is null;

        select format('job %s: needs a kind, and kind, agent and capabilities of at most 200 characters each', place)
        into v_fault
        from rows from (jsonb_to_recordset(p_jobs) as (kind text, agent text, capabilities text[]))
            with ordinality as job (kind, agent, capabilities, place)
        where kind is null
           or greatest(length(kind), length(agent), (select max(length(name)) from unnest(capabilities) as name)) > 200
        limit 1;
        if found then
            raise exception '%', v_fault using errcode = 'invalid_parameter_value';
        end if;
        perform _lane(coalesce(agent, 'codex'), kind, coalesce(capabilities, '{}'), payload, concurrency_key)
        from rows from (
            jsonb_to_recordset(p_jobs) as (
                agent text, kind text, capabilities text[], payload jsonb, concurrency_key text
            ),
            unnest(v_lanes)
        ) as job (agent, kind, capabilities, payload, concurrency_key, lane_id)
        where lane_id is null;
    end loop;
    return v_lanes;
end;
$$;

comment on function moonmind_queue._lanes(jsonb) is 'The lanes of jobs.';
-- <<<
-- >>> sql/_leases_again.sql
-- _leases_again(now) → when this session is to look at all leases again; null: at once.
--
-- A time further off than 30 s was set before the clock went back.
create or replace function moonmind_queue._leases_again(p_now timestamptz)
returns timestamptz
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_again constant timestamptz := nullif(current_setting('moonmind_queue.leases', true), '');
begin
    return case when v_again > p_now and v_again <= p_now + interval '30 s' then v_again end;
end;
$$;

comment on function moonmind_queue._leases_again(timestamptz) is 'When this session looks at all leases again.';
-- <<<
-- >>> sql/_lock_budgets.sql
-- _lock_budgets() → void; nobody else reckons what is used up until this transaction ends.
--
-- Two that add to a budget at once would each see too little of it.
-- Locks     an advisory lock, before any row that tells what was used.
create or replace function moonmind_queue._lock_budgets()
returns void
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
begin
    perform pg_advisory_xact_lock(hashtextextended('moonmind_queue.budget', 0));
end;
$$;

comment on function moonmind_queue._lock_budgets() is 'Reckon alone.';
-- <<<
-- >>> sql/_lock_dependents.sql
-- _lock_dependents(job, wait) → whether all jobs are locked that change when this one fails.
--
-- Contract
--   * Without wait there is one try, and the answer says whether it got them all.
-- Locks     the job is locked by the caller; the dependents, in id order.
-- Errors    40001 see _lock_late().
create or replace function moonmind_queue._lock_dependents(p_job_id bigint, p_wait boolean default true)
returns boolean
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_held bigint[] := array[p_job_id];
    v_more bigint[] := _dependents('{}', v_held);
begin
    if not p_wait then
        return _lock_jobs(v_more, false) and _dependents('{}', v_held) <@ v_more;
    end if;
    while v_more <> '{}' loop
        perform _lock_late(v_more, v_held);
        v_held := v_held || v_more;
        v_more := array(select unnest(_dependents('{}', array[p_job_id])) except select unnest(v_held));
    end loop;
    return true;
end;
$$;

comment on function moonmind_queue._lock_dependents(bigint, boolean) is 'Lock the jobs that the failure of one concerns.';
-- <<<
-- >>> sql/_lock_ends.sql
-- _lock_ends(jobs) → whether others depend on them; locks leased jobs that are to end well, and those.
--
-- Contract
--   * One order for all of them: a dependent of one job may stand before another of the jobs.
-- Locks     the jobs and their dependents, in one id order.
-- Errors    40001 see _lock_late().
create or replace function moonmind_queue._lock_ends(p_job_ids bigint[])
returns boolean
language plpgsql
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set enable_hashjoin = off
set max_parallel_workers_per_gather = 0
set enable_mergejoin = off
as $$
declare
    v_held bigint[];
    v_more bigint[];
begin
    select array_agg(id) into v_held
    from (
        select id
        from job
        where id = any (p_job_ids || array(select job_id from dependency where needs_job_id = any (p_job_ids)))
        order by id
        for update
    ) as locked;
    -- From here on nobody can come to depend on them: that takes a lock of theirs.
    if not exists (select from dependency where needs_job_id = any (p_job_ids)) then
        return false;
    end if;
    loop
        v_more := array(
            select unnest(_dependents(p_job_ids, array(
                select job_id from lease where job_id = any (p_job_ids) and cancel_requested_at is not null
            )))
            except
            select unnest(v_held)
        );
        exit when v_more = '{}';
        perform _lock_late(v_more, v_held);
        v_held := v_held || v_more;
    end loop;
    return true;
end;
$$;

comment on function moonmind_queue._lock_ends(bigint[]) is 'Lock jobs that are to end, with their dependents.';
-- <<<
-- >>> sql/_lock_job.sql
-- _lock_job(job) → the job row, locked.
--
-- Errors    MQ002 no such job.
create or replace function moonmind_queue._lock_job(p_job_id bigint)
returns moonmind_queue.job
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_job job;
begin
    select * into v_job from job where id = p_job_id for update;
    if not found then
        raise exception 'job % does not exist', p_job_id using errcode = 'MQ002';
    end if;
    return v_job;
end;
$$;

comment on function moonmind_queue._lock_job(bigint) is 'Lock a job, or raise.';
-- <<<
-- >>> sql/_lock_jobs.sql
-- _lock_jobs(jobs, wait) → whether all of them are locked now.
--
-- Contract
--   * Without wait those that another session holds are passed over, and the answer is false.
-- Locks     the jobs, in id order.
create or replace function moonmind_queue._lock_jobs(p_job_ids bigint[], p_wait boolean)
returns boolean
language plpgsql
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set enable_hashjoin = off
set max_parallel_workers_per_gather = 0
set enable_mergejoin = off
as $$
declare
    v_locked bigint;
begin
    if p_wait then
        perform from job where id = any (p_job_ids) order by id for update;
        return true;
    end if;
    perform from job where id = any (p_job_ids) order by id for update skip locked;
    get diagnostics v_locked = row_count;
    return v_locked = (select count(*) from job where id = any (p_job_ids));
end;
$$;

comment on function moonmind_queue._lock_jobs(bigint[], boolean) is 'Lock jobs in id order.';
-- <<<
-- >>> sql/_lock_late.sql
-- _lock_late(jobs, held) → void; locks jobs that came to depend on those that the caller holds, out of order.
--
-- Contract
--   * Waits only where that is in id order after all: a new job usually has the highest id. Else
--     it takes what nobody else has, and gives the transaction up rather than wait in a circle.
-- Locks     the jobs.
-- Errors    40001 another transaction has one of them; try again.
create or replace function moonmind_queue._lock_late(p_job_ids bigint[], p_held bigint[])
returns void
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
begin
    if not _lock_jobs(p_job_ids, (select min(id) from unnest(p_job_ids) as id) > (select max(id) from unnest(p_held) as id)) then
        raise exception 'another transaction is changing what depends on these jobs; try again'
            using errcode = 'serialization_failure';
    end if;
end;
$$;

comment on function moonmind_queue._lock_late(bigint[], bigint[]) is 'Lock dependents that came while locks were waited for.';
-- <<<
-- >>> sql/_lock_lease.sql
-- _lock_lease(job, token) → the lease, its job and itself locked, if this token holds it.
--
-- Every function that acts for one lease holder begins here, so the fence exists once.
-- Locks     the job, then its lease.
-- Errors    MQ001 lease lost, MQ002 no such job, MQ004 not admitted by the login's policy.
create or replace function moonmind_queue._lock_lease(p_job_id bigint, p_token bigint)
returns moonmind_queue.lease
language plpgsql
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_lease lease;
begin
    perform from job where id = p_job_id for update;
    if not found then
        raise exception 'job % does not exist', p_job_id using errcode = 'MQ002';
    end if;
    select * into v_lease from lease where job_id = p_job_id and token = p_token for update;
    if not found then
        raise exception 'token % no longer holds job %', p_token, p_job_id using errcode = 'MQ001';
    end if;
    perform _check_policy(array[p_job_id], array[p_token]);
    return v_lease;
end;
$$;

comment on function moonmind_queue._lock_lease(bigint, bigint) is 'Lock a job on behalf of its lease holder, or raise.';
-- <<<
-- >>> sql/_lock_needs.sql
-- _lock_needs(jobs) → void; locks the jobs that new ones need.
--
-- Contract
--   * Until the caller's transaction ends none of them can end, so what it counts stays true.
-- Locks     the jobs, shared, in id order.
-- Errors    22023 when one does not exist or is null.
create or replace function moonmind_queue._lock_needs(p_job_ids bigint[])
returns void
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_missing text;
begin
    perform from job where id = any (p_job_ids) order by id for share;

    select string_agg(coalesce(needs.id::text, 'null'), ', ' order by needs.id) into v_missing
    from unnest(p_job_ids) as needs (id)
    where not exists (select from job where job.id = needs.id);
    if v_missing is not null then
        raise exception 'depends on unknown job %', v_missing
            using errcode = 'invalid_parameter_value';
    end if;
end;
$$;

comment on function moonmind_queue._lock_needs(bigint[]) is 'Lock dependencies shared.';
-- <<<
-- >>> sql/_lock_room.sql
-- _lock_room(lane, taken) → whether the limits leave room for one more job of this lane; they are locked then.
--
-- taken are jobs that this claim has chosen already and has not leased yet.
--
-- Locks     an advisory lock for each scope that counts the lane, until the transaction ends; one
--           that another claim has is not waited for, and there is no room.
-- Errors    25000 not read committed: the count would be that of a moment before the locks.
create or replace function moonmind_queue._lock_room(p_lane integer, p_taken bigint[])
returns boolean
language plpgsql
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
as $$
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'a claim within limits needs a transaction that is read committed'
            using errcode = 'invalid_transaction_state';
    end if;
    if exists (
        select from _room(array[p_lane])
        where not pg_try_advisory_xact_lock(hashtext('moonmind_queue ' || scope), hashtext(name))
    ) then
        return false;
    end if;
    return not exists (select from _room(array[p_lane], p_taken) where room <= 0);
end;
$$;

comment on function moonmind_queue._lock_room(integer, bigint[]) is 'Lock the limits of a lane, if they leave room.';
-- <<<
-- >>> sql/_lock_schedule.sql
-- _lock_schedule(name) → its row, locked.
--
-- Errors    MQ005 no such schedule.
create or replace function moonmind_queue._lock_schedule(p_name text)
returns moonmind_queue.schedule
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_schedule schedule;
begin
    select * into v_schedule from schedule where name = p_name for update;
    if not found then
        raise exception 'schedule "%" does not exist', left(p_name, 100) using errcode = 'MQ005';
    end if;
    return v_schedule;
end;
$$;

comment on function moonmind_queue._lock_schedule(text) is 'Lock a schedule, or raise.';
-- <<<
-- >>> sql/_log.sql
-- _log(job, type, message, level, worker, data) → the number of the event.
--
-- Contract
--   * The caller holds the job's row lock; the number is the next one of this job.
create or replace function moonmind_queue._log(
    p_job_id  bigint,
    p_type    text,
    p_message text default '',
    p_level   text default 'info',
    p_worker  text default session_user,
    p_data    jsonb default null
)
returns integer
language plpgsql
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_seq integer;
begin
    update job set event_seq = event_seq + 1 where id = p_job_id returning event_seq into v_seq;
    insert into event (job_id, seq, at, type, level, message, worker, data)
    values (p_job_id, v_seq, _now(), p_type, p_level, coalesce(p_message, ''), p_worker, p_data);
    return v_seq;
end;
$$;

comment on function moonmind_queue._log(bigint, text, text, text, text, jsonb) is 'Append one event to a locked job''s history.';
-- <<<
-- >>> sql/_lost_leases.sql
-- _lost_leases(job) → how many leases the job lost since it was made or last retried by a person.
create or replace function moonmind_queue._lost_leases(p_job_id bigint)
returns bigint
language sql
stable
set search_path = moonmind_queue, pg_temp
as $$
    select count(*)
    from event
    where job_id = p_job_id
      and type = 'expired'
      and seq > (select coalesce(max(seq), 0) from event where job_id = p_job_id and type = 'retried');
$$;

comment on function moonmind_queue._lost_leases(bigint) is 'Lost leases of a job since its last retry.';
-- <<<
-- >>> sql/_make_months.sql
-- _make_months(table) → how many partitions were made: for this month and the next two, in UTC.
--
-- Contract
--   * A month of which the default partition holds rows already stays there: rows never move.
--   * Waits 50 ms at most for whoever uses the table; then that is left for next time.
--   * None while the default partition has more than 8 MiB: all of it would be read while it is
--     locked. A valid check constraint that says what it holds spares that; docs/retention.md.
-- Locks     the table and its default partition, exclusively, until the transaction ends.
create or replace function moonmind_queue._make_months(p_table text)
returns integer
language plpgsql
set search_path = moonmind_queue, pg_temp
set lock_timeout = '50 ms'
as $$
declare
    c_quickly constant bigint   := 8 * 1024 * 1024;  -- bytes that are read in a few milliseconds
    c_default constant regclass := format('moonmind_queue.%I', p_table || '_default');
    v_made    integer := 0;
    v_from    timestamp;
    v_name    text;
    v_strayed boolean;
begin
    if pg_relation_size(c_default) > c_quickly
        and not exists (select from pg_constraint where conrelid = c_default and contype = 'c' and convalidated)
    then
        return 0;
    end if;
    for v_number in 0..2 loop
        v_from := date_trunc('month', _now() at time zone 'UTC') + v_number * interval '1 month';
        v_name := format('%s_%s', p_table, to_char(v_from, 'YYYY_MM'));
        continue when to_regclass(format('moonmind_queue.%I', v_name)) is not null;
        execute format('select exists (select from %s where at >= $1 and at < $2)', c_default)
        into v_strayed
        using v_from at time zone 'UTC', (v_from + interval '1 month') at time zone 'UTC';
        continue when v_strayed;
        begin
            execute format(
                'create table moonmind_queue.%I partition of moonmind_queue.%I for values from (%L) to (%L)',
                v_name, p_table, v_from at time zone 'UTC', (v_from + interval '1 month') at time zone 'UTC'
            );
            execute format('comment on table moonmind_queue.%I is %L', v_name,
                           format('Rows of %s of %s, in UTC.', p_table, to_char(v_from, 'YYYY-MM')));
            v_made := v_made + 1;
        exception when lock_not_available or deadlock_detected or check_violation then
            return v_made;
        end;
    end loop;
    return v_made;
end;
$$;

comment on function moonmind_queue._make_months(text) is 'Make the partitions that are needed soon.';
-- <<<
-- >>> sql/_make_room.sql
-- _make_room() → void; leases have ended: where limits kept jobs back, workers look again.
--
-- Notifies  moonmind_queue, of agents with claimable jobs that somebody sleeps for.
create or replace function moonmind_queue._make_room()
returns void
language plpgsql
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
begin
    if exists (select from run_limit) then
        perform _ring(array(
            select distinct agent
            from lane
            where exists (select from ready where ready.lane_id = lane.id)
        ));
    end if;
end;
$$;

comment on function moonmind_queue._make_room() is 'Wake workers that a limit may have kept waiting.';
-- <<<
-- >>> sql/_not_admitted.sql
-- _not_admitted(jobs, tokens) → those of the jobs, held with these tokens, that the login's policy does not admit.
--
-- Contract
--   * Neither a job outside the policy nor one that is held under a worker id outside it.
--   * A token that no longer holds its job is not this function's to judge.
create or replace function moonmind_queue._not_admitted(p_job_ids bigint[], p_tokens bigint[])
returns bigint[]
language plpgsql
stable
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set enable_hashjoin = off
set max_parallel_workers_per_gather = 0
set enable_mergejoin = off
as $$
declare
    v_policy constant policy := _policy();
begin
    if v_policy.role is null then
        return '{}';
    end if;
    return array(
        select lease.job_id
        from unnest(p_job_ids, p_tokens) as given (job_id, token)
        join lease on lease.job_id = given.job_id and lease.token = given.token
        join lane on lane.id = lease.lane_id
        where not _permits(v_policy, lane) or lease.worker <> all (v_policy.workers)
    );
end;
$$;

comment on function moonmind_queue._not_admitted(bigint[], bigint[]) is 'Held jobs that the login may not hold.';
-- <<<
-- >>> sql/_now.sql
-- _now() → the queue's time: the wall clock of the database server, not of the transaction.
--
-- Contract
--   * The only clock. Tests replace this function in their own databases; nothing else moves it.
--   * No search_path is pinned: it names nothing that one could replace, and so the planner puts
--     it into the statements that use it. A call would cost each of them 20 us.
create or replace function moonmind_queue._now()
returns timestamptz
language sql
as $$
    select clock_timestamp();
$$;

comment on function moonmind_queue._now() is 'The one clock of the queue.';
-- <<<
-- >>> sql/_number_jobs.sql
-- _number_jobs(jobs) → place in the call, key, the id that the job has or will have, whether it is new.
--
-- Contract
--   * A key that a job has already, or that stood earlier in the call, brings that job's id; only
--     the first place of a key that no job has is new.
--   * A new job's id is above those of all that it needs, so that id order is a lock order.
-- Errors    22023 circle (with its path).
create or replace function moonmind_queue._number_jobs(p_jobs jsonb)
returns table (place bigint, key text, id bigint, is_new boolean)
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
#variable_conflict use_column
declare
    v_keys     text[];     -- by place
    v_first    integer[];  -- place → where its key stands first; itself without a key
    v_known    bigint[];   -- place → the job that has its key already
    v_made     jsonb;      -- key of a new job → its place; a join would be guessed to be small
    v_children integer[];  -- edge → place of a new job, and
    v_parents  integer[];  --        place of the new job that it needs
begin
    if not jsonb_path_exists(p_jobs, '$[*].key ? (@ != null)') then
        return query
        select place, null::text, nextval('moonmind_queue.job_id_seq'), true
        from generate_series(1, jsonb_array_length(p_jobs)::bigint) as place;
        return;
    end if;

    select array_agg(given.key order by place), array_agg(first order by place), array_agg(job.id order by place)
    into v_keys, v_first, v_known
    from (
        select place, key, case when key is null then place else min(place) over (partition by key) end as first
        from jsonb_array_elements(p_jobs) with ordinality as element (job, place),
             lateral (select job ->> 'key') as named (key)
    ) as given
    left join job on job.key = given.key;

    select jsonb_object_agg(key, place) into v_made
    from unnest(v_keys, v_first, v_known) with ordinality as given (key, first, known, place)
    where key is not null and first = place and known is null;

    select array_agg(place order by place, parent), array_agg(parent order by place, parent)
    into v_children, v_parents
    from jsonb_array_elements(p_jobs) with ordinality as element (job, place)
    cross join lateral jsonb_array_elements(
        case jsonb_typeof(job -> 'after') when 'array' then job -> 'after' else '[]' end
    ) as need
    cross join lateral (
        select (v_made ->> (need #>> '{}'))::integer where jsonb_typeof(need) = 'string'
    ) as needed (parent)
    where parent is not null and v_first[place] = place and v_known[place] is null;

    return query
    with made as materialized (
        select place, nextval('moonmind_queue.job_id_seq') as id
        from (
            select place
            from unnest(_order_jobs(
                array(select coalesce(key, 'job ' || place) from unnest(v_keys) with ordinality as given (key, place) order by place),
                v_children, v_parents
            )) with ordinality as ordered (place, turn)
            where v_first[place] = place and v_known[place] is null
            order by turn
        ) as ordered
    )
    select given.place, given.key, coalesce(given.known, made.id), given.known is null and given.first = given.place
    from unnest(v_keys, v_first, v_known) with ordinality as given (key, first, known, place)
    left join made on made.place = given.first;
end;
$$;

comment on function moonmind_queue._number_jobs(jsonb) is 'Give every job of a call its id.';
-- <<<
-- >>> sql/_offer.sql
-- _offer(jobs) → void; lets workers see those of the jobs that are queued.
--
-- Contract
--   * A job whose run_at has come goes to ready, another to scheduled.
--   * The one place that makes a job claimable, and so the one that wakes workers.
-- Notifies  moonmind_queue, of agents that somebody sleeps for.
create or replace function moonmind_queue._offer(p_job_ids bigint[])
returns void
language plpgsql
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_now   constant timestamptz := _now();
    v_ready bigint;
begin
    insert into ready (lane_id, rank, job_id)
    select lane_id, rank, id
    from job
    where id = any (p_job_ids) and state = 'queued' and run_at <= v_now;
    get diagnostics v_ready = row_count;

    if v_ready < cardinality(p_job_ids) then
        insert into scheduled (lane_id, run_at, rank, job_id)
        select lane_id, run_at, rank, id
        from job
        where id = any (p_job_ids) and state = 'queued' and run_at > v_now;
    end if;

    perform _ring(array(
        select distinct agent from job where id = any (p_job_ids) and state = 'queued'
    ));
end;
$$;

comment on function moonmind_queue._offer(bigint[]) is 'Make queued jobs claimable and wake workers.';
-- <<<
-- >>> sql/_open_lanes.sql
-- _open_lanes(agents, kinds, capabilities, policy) → the ids of the lanes that the caller may take from now.
--
-- Contract
--   * A null list of agents or kinds admits all of them; a worker must offer every capability that
--     a lane requires.
--   * What is asked for is narrowed to the policy.
--   * A lane of a paused agent is not open, nor one whose budget is used up. What run_limit has to
--     say, _room() says.
-- Errors    MQ004 when the policy leaves none of the agents or none of the kinds.
create or replace function moonmind_queue._open_lanes(
    p_agents       text[],
    p_kinds        text[],
    p_capabilities text[],
    p_policy       moonmind_queue.policy
)
returns integer[]
language plpgsql
stable
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
as $$
declare
    v_offered constant text[] := _capabilities(p_capabilities);
begin
    if p_policy.role is not null and (
        not p_agents && p_policy.agents or not p_kinds && p_policy.kinds
    ) then
        raise exception 'the policy of % admits none of what was asked for: agents %, kinds %',
            session_user, coalesce(p_agents::text, 'all'), coalesce(p_kinds::text, 'all')
            using errcode = 'MQ004';
    end if;
    return array(
        select lane.id
        from lane
        where (p_agents is null or agent = any (p_agents))
          and (p_kinds is null or kind = any (p_kinds))
          and capabilities <@ v_offered
          and (p_policy.role is null or _permits(p_policy, lane))
          and not (exists (select from pause) and _is_paused(agent))
          and not (exists (select from spent_budget) and _spent(agent, repository) is not null)
    );
end;
$$;

comment on function moonmind_queue._open_lanes(text[], text[], text[], moonmind_queue.policy) is 'The lanes that a worker may take from now.';
-- <<<
-- >>> sql/_order_jobs.sql
-- _order_jobs(names, children, parents) → the jobs in an order in which none comes before its needs.
--
-- The jobs of one call are numbered from 1; edge i says that job children[i] needs job parents[i].
--
-- Contract
--   * As they were given when that is such an order already.
--   * Linear in jobs and edges: jobs without an unmet need are taken away until none is left.
-- Errors    22023 with the path, for example: a -> b -> a.
create or replace function moonmind_queue._order_jobs(
    p_names    text[],
    p_children integer[],
    p_parents  integer[]
)
returns integer[]
language plpgsql
immutable
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_count constant integer := cardinality(p_names);
    v_needs integer[] := array_fill(0, array[v_count]);   -- job → needs not taken away yet
    v_first integer[] := array_fill(0, array[v_count]);   -- parent → its first edge
    v_next  integer[] := array_fill(0, array[greatest(cardinality(p_children), 1)]);  -- edge → next edge of the same parent
    v_taken integer[] := '{}';
    v_done  integer := 0;
    v_edge  integer;
    v_job   integer;
    v_path  integer[];
begin
    -- Dependencies on earlier jobs only, the usual case, cannot form a circle.
    if not exists (
        select from unnest(p_children, p_parents) as edge (child, parent) where parent >= child
    ) then
        return array(select generate_series(1, v_count));
    end if;
    for v_edge in 1 .. cardinality(p_children) loop
        v_needs[p_children[v_edge]] := v_needs[p_children[v_edge]] + 1;
        v_next[v_edge] := v_first[p_parents[v_edge]];
        v_first[p_parents[v_edge]] := v_edge;
    end loop;
    for v_job in 1 .. v_count loop
        if v_needs[v_job] = 0 then
            v_taken[cardinality(v_taken) + 1] := v_job;
        end if;
    end loop;
    while v_done < cardinality(v_taken) loop
        v_done := v_done + 1;
        v_edge := v_first[v_taken[v_done]];
        while v_edge > 0 loop
            v_job := p_children[v_edge];
            v_needs[v_job] := v_needs[v_job] - 1;
            if v_needs[v_job] = 0 then
                v_taken[cardinality(v_taken) + 1] := v_job;
            end if;
            v_edge := v_next[v_edge];
        end loop;
    end loop;
    if v_done = v_count then
        return v_taken;
    end if;

    -- Whatever is left needs something that is left: following that leads into a circle.
    select min(i) into v_job from generate_subscripts(v_needs, 1) as i where v_needs[i] > 0;
    loop
        v_path := v_path || v_job;
        select min(parent) into v_job
        from unnest(p_children, p_parents) as edge (child, parent)
        where child = v_path[cardinality(v_path)] and v_needs[parent] > 0;
        exit when v_job = any (v_path);
    end loop;
    v_path := v_path[array_position(v_path, v_job):] || v_job;
    raise exception 'jobs depend on each other in a circle: %',
        (select string_agg(p_names[step.job], ' -> ' order by step.place)
         from unnest(v_path) with ordinality as step (job, place))
        using errcode = 'invalid_parameter_value';
end;
$$;

comment on function moonmind_queue._order_jobs(text[], integer[], integer[]) is 'Order jobs by their needs, or raise when these form a circle.';
-- <<<
-- >>> sql/_overspent.sql
-- _overspent(job) → in words how a job has used up its own budget; null when it has not, or has none.
--
-- Contract
--   * Its budget is what its payload says as budget {"tokens", "cost"} and what the budget of its
--     kind (or of *) says: the smaller counts, so that no producer is above an operator.
--   * It counts all attempts since the job was last retried by a person. What has no price costs nothing here.
create or replace function moonmind_queue._overspent(p_job_id bigint)
returns text
language plpgsql
stable
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
as $$
declare
    v_used record;
    v_most record;
begin
    select sum(input_tokens + output_tokens) as tokens, sum(cost) as cost
    into v_used
    from job_usage
    where job_id = p_job_id and counts;
    select least(case when jsonb_typeof(asked -> 'tokens') = 'number' then (asked ->> 'tokens')::numeric end, tokens) as tokens,
           least(case when jsonb_typeof(asked -> 'cost') = 'number' then (asked ->> 'cost')::numeric end, cost) as cost
    into v_most
    from (
        select payload -> 'budget' as asked, applied.*
        from job
        left join lateral (
            select tokens, cost
            from budget
            where scope = 'job' and name in (job.kind, '*')
            order by name = '*'
            limit 1
        ) as applied on true
        where id = p_job_id
    ) as budgets;
    return case
        when v_used.tokens >= v_most.tokens
            then format('the budget of the job is used up: %s of %s tokens', v_used.tokens, v_most.tokens)
        when v_used.cost >= v_most.cost
            then format('the budget of the job is used up: %s of %s %s', trim_scale(round(v_used.cost, 4)), v_most.cost,
                        (select currency from token_price limit 1))
    end;
end;
$$;

comment on function moonmind_queue._overspent(bigint) is 'Whether a job has used up its own budget.';
-- <<<
-- >>> sql/_pause.sql
-- _pause(agent, cause, reason, until, by) → void
--
-- Locks     its row in pause, after any job.
create or replace function moonmind_queue._pause(
    p_agent text, p_cause text, p_reason text, p_until timestamptz, p_by text
)
returns void
language sql
set search_path = moonmind_queue, pg_temp
as $$
    insert into pause (agent, cause, reason, until, paused_at, paused_by)
    values (p_agent, p_cause, p_reason, p_until, _now(), p_by)
    on conflict (agent, cause) do update
    set reason = excluded.reason, until = excluded.until,
        paused_at = excluded.paused_at, paused_by = excluded.paused_by;
$$;

comment on function moonmind_queue._pause(text, text, text, timestamptz, text) is 'Write down a pause.';
-- <<<
-- >>> sql/_permits.sql
-- _permits(policy, lane) → whether the policy lets its role claim and hold jobs of this lane.
--
-- Contract
--   * A null list admits all. With repositories listed, a job that names none is not admitted.
--   * host/owner/* admits what is below; a path with a way up or an escape is never below.
create or replace function moonmind_queue._permits(p_policy moonmind_queue.policy, p_lane moonmind_queue.lane)
returns boolean
language sql
immutable
set search_path = moonmind_queue, pg_temp
as $$
    select (p_policy.agents is null or p_lane.agent = any (p_policy.agents))
       and (p_policy.kinds is null or p_lane.kind = any (p_policy.kinds))
       and (p_policy.capabilities is null or p_lane.capabilities <@ p_policy.capabilities)
       and (
           p_policy.repositories is null
           or p_lane.repository = any (p_policy.repositories)
           or p_lane.repository !~ '(^|/)\.\.?(/|$)|%' and exists (
               select from unnest(p_policy.repositories) as allowed
               where right(allowed, 2) = '/*' and starts_with(p_lane.repository, left(allowed, -1))
           )
       );
$$;

comment on function moonmind_queue._permits(moonmind_queue.policy, moonmind_queue.lane) is 'Whether a policy admits a lane.';
-- <<<
-- >>> sql/_policy.sql
-- _policy() → the policy of the role that logged in; null where it has none and may do all its role may.
--
-- Contract
--   * The login, not the role whose rights a function runs with, and not one that was set later.
create or replace function moonmind_queue._policy()
returns moonmind_queue.policy
language plpgsql
stable
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_policy policy;
begin
    select * into v_policy from policy where role = session_user;
    return v_policy;
end;
$$;

comment on function moonmind_queue._policy() is 'The policy of the login.';
-- <<<
-- >>> sql/_promote.sql
-- _promote(lanes, now) → void; moves scheduled jobs of these lanes whose time has come to ready.
--
-- Contract
--   * At most 1,000 a lane and call, so that a claim stays quick; the rest follows with the next.
-- Locks     rows of scheduled, skip locked.
create or replace function moonmind_queue._promote(p_lanes integer[], p_now timestamptz)
returns void
language plpgsql
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set enable_hashjoin = off
set max_parallel_workers_per_gather = 0
set enable_mergejoin = off
as $$
begin
    with due as materialized (
        select due.*
        from unnest(p_lanes) as lane (id)
        cross join lateral (
            select s.lane_id, s.run_at, s.job_id
            from scheduled s
            where s.lane_id = lane.id and s.run_at <= p_now
            order by s.run_at, s.job_id
            limit 1000
            for update skip locked
        ) as due
    ),
    moved as (
        delete from scheduled
        using due
        where (scheduled.lane_id, scheduled.run_at, scheduled.job_id)
            = (due.lane_id, due.run_at, due.job_id)
        returning scheduled.*
    )
    insert into ready (lane_id, rank, job_id)
    select lane_id, rank, job_id from moved;
end;
$$;

comment on function moonmind_queue._promote(integer[], timestamptz) is 'Make scheduled jobs claimable whose time has come.';
-- <<<
-- >>> sql/_queue.sql
-- _queue(job, run_at) → its new state: queued, waiting while a dependency is not met, or blocked.
--
-- Contract
--   * The one way back into the queue: after a failure, a lost lease, a release, a retry.
--   * A job that has become pointless meanwhile is cancelled instead.
--   * A job that has used up its own budget is blocked: another attempt would use more.
--   * Any lease is gone; the error stays until the job succeeds.
-- Locks     the job is locked by the caller.
create or replace function moonmind_queue._queue(p_job_id bigint, p_run_at timestamptz)
returns text
language plpgsql
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_now   constant timestamptz := _now();
    v_unmet constant integer := _unmet(p_job_id);
    v_job   job;
    v_spent text;
begin
    if exists (select from usage where job_id = p_job_id and not over) then
        v_spent := _overspent(p_job_id);
        if v_spent is not null then
            return _end(p_job_id, 'blocked', v_spent, 'blocked', 'warn');
        end if;
    end if;
    delete from lease where job_id = p_job_id;
    update job
    set unmet = v_unmet,
        state = case when v_unmet > 0 then 'waiting' else 'queued' end,
        run_at = p_run_at,
        rank = _rank(priority, p_run_at),
        finished_at = null,
        updated_at = v_now
    where id = p_job_id
    returning * into v_job;
    if v_job.expires_at <= v_now then
        return _expire(v_job);
    end if;
    if v_job.state = 'queued' then
        perform _offer(array[p_job_id]);
    end if;
    perform _make_room();
    return v_job.state;
end;
$$;

comment on function moonmind_queue._queue(bigint, timestamptz) is 'Put a locked job back into the queue, or park it.';
-- <<<
-- >>> sql/_rank.sql
-- _rank(priority, run_at) → the place of a job in its lane, lowest first.
--
-- run_at in microseconds, less an hour for each level of priority: an hour of waiting outweighs one
-- level. So the order of two jobs never changes, and no job starves behind an endless stream of
-- more urgent ones. No search_path is pinned: it names nothing that one could replace, and so the
-- planner puts it into the statements that use it.
create or replace function moonmind_queue._rank(p_priority integer, p_run_at timestamptz)
returns bigint
language sql
stable
as $$
    select (date_part('epoch', p_run_at) * 1000000)::bigint - p_priority::bigint * 3600000000;
$$;

comment on function moonmind_queue._rank(integer, timestamptz) is 'The order in which jobs are claimed.';
-- <<<
-- >>> sql/_reckon_budgets.sql
-- _reckon_budgets() → void; writes anew which budgets are used up, after a budget or a price has changed.
--
-- Locks     the caller has them: _lock_budgets().
-- Notifies  moonmind_queue, of agents with claimable jobs, for some may be free now.
create or replace function moonmind_queue._reckon_budgets()
returns void
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
begin
    delete from spent_budget;
    insert into spent_budget (scope, name, period, until, reason)
    select scope, name, period, until, reason from budget_overview where used_up;
    perform _ring(array(
        select distinct agent
        from lane
        where exists (select from ready where ready.lane_id = lane.id)
    ));
end;
$$;

comment on function moonmind_queue._reckon_budgets() is 'See anew which budgets are used up.';
-- <<<
-- >>> sql/_redefine.sql
-- _redefine(job, wanted, needs, changed) → void; a job is to say from now on what wanted says, and to need these jobs.
--
-- Contract
--   * Its state stays, but that one that is queued may have to wait now and the other way round. An
--     attempt under way keeps what it was given; the next one gets the new.
--   * A job may come to need one with a higher id. Whoever locks dependents out of order because of
--     that does not wait for them: see _lock_late().
-- Locks     the job and the jobs that it needs are locked by the caller.
-- Events    updated
create or replace function moonmind_queue._redefine(
    p_job     moonmind_queue.job,
    p_wanted  jsonb,
    p_needs   bigint[],
    p_changed text[]
)
returns void
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_wanted record;
begin
    select * into v_wanted
    from jsonb_to_record(p_wanted) as (
        name text, agent text, kind text, payload jsonb, priority integer, max_attempts integer,
        timeout interval, capabilities text[]
    );
    if p_job.state = 'queued' then
        perform _withdraw(p_job);
    end if;
    delete from dependency where job_id = p_job.id and needs_job_id <> all (p_needs);
    insert into dependency (job_id, needs_job_id)
    select p_job.id, unnest(p_needs)
    on conflict do nothing;
    update job
    set name = v_wanted.name,
        agent = v_wanted.agent,
        kind = v_wanted.kind,
        payload = v_wanted.payload,
        priority = coalesce(v_wanted.priority, 0),
        max_attempts = coalesce(v_wanted.max_attempts, 3),
        timeout = v_wanted.timeout,
        lane_id = _lane(
            v_wanted.agent, v_wanted.kind, _capabilities(v_wanted.capabilities), v_wanted.payload,
            (select concurrency_key from lane where id = p_job.lane_id)
        ),
        updated_at = _now()
    where id = p_job.id;
    perform _log(p_job.id, 'updated', p_data => jsonb_build_object('changed', to_jsonb(p_changed)));
    if p_job.state in ('waiting', 'queued') then
        perform _queue(p_job.id, p_job.run_at);
    end if;
end;
$$;

comment on function moonmind_queue._redefine(moonmind_queue.job, jsonb, bigint[], text[]) is 'Change what a locked job says and needs.';
-- <<<
-- >>> sql/_release_dependents.sql
-- _release_dependents(jobs) → void; the jobs have ended: queue who waited for the last of them.
--
-- Contract
--   * A waiting dependent for whom that meets its dependency counts one unmet less for each; at
--     none it is queued.
-- Locks     the dependents are locked by the caller, whatever their state: one that is just coming
--           back to waiting counts this end itself or is counted here, never neither.
-- Events    ready
create or replace function moonmind_queue._release_dependents(p_job_ids bigint[])
returns void
language plpgsql
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set enable_hashjoin = off
set max_parallel_workers_per_gather = 0
set enable_mergejoin = off
as $$
declare
    v_now  constant timestamptz := _now();
    v_free bigint[];
begin
    with met as (
        select dependency.job_id, count(*) as number
        from unnest(p_job_ids) as ended (id)
        join job as needed on needed.id = ended.id
        join dependency on dependency.needs_job_id = needed.id
        join job on job.id = dependency.job_id
        where job.state = 'waiting' and _is_met(needed.state, job.on_dependency_failure)
        group by dependency.job_id
    ),
    counted as (
        update job
        set unmet = unmet - number,
            state = case when unmet = number then 'queued' else 'waiting' end,
            event_seq = event_seq + (unmet = number)::integer,
            updated_at = v_now
        from met
        where job.id = met.job_id
        returning id, state, event_seq
    ),
    logged as (
        insert into event (job_id, seq, at, type, message)
        select id, event_seq, v_now, 'ready', 'every dependency is met'
        from counted
        where state = 'queued'
    )
    select array_agg(id) into v_free from counted where state = 'queued';
    if v_free is not null then
        perform _offer(v_free);
    end if;
end;
$$;

comment on function moonmind_queue._release_dependents(bigint[]) is 'Queue the dependents that no longer wait for anything.';
-- <<<
-- >>> sql/_repository.sql
-- _repository(payload) → the repository that a payload names, as host/path in lower case, or ''.
--
-- Contract
--   * owner/repo is one of github.com; scheme, user and .git make no difference.
--   * A name above 500 characters is none: cut off, it could pass for another.
--   * Only the form in which repositories are compared; whether it is a sane one is for whoever
--     checks the job's payload to say.
create or replace function moonmind_queue._repository(p_payload jsonb)
returns text
language plpgsql
immutable
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_name text := lower(btrim(p_payload ->> 'repository'));
begin
    if jsonb_typeof(p_payload -> 'repository') is distinct from 'string' or length(v_name) > 500 then
        return '';
    end if;
    if v_name ~ '^[^/:]+/[^/]+$' then
        v_name := 'github.com/' || v_name;
    elsif v_name !~ '^[a-z0-9+.-]+://' then
        v_name := regexp_replace(v_name, '^([^/:]+):', '\1/');  -- git@host:path
    end if;
    v_name := regexp_replace(v_name, '^[a-z0-9+.-]+://', '');
    v_name := regexp_replace(v_name, '^[^/@?#\\]*@', '');  -- behind ? or # it is no user
    return regexp_replace(v_name, '(\.git)?/*$', '');
end;
$$;

comment on function moonmind_queue._repository(jsonb) is 'The repository of a payload in the form in which it is compared.';
-- <<<
-- >>> sql/_rest_after.sql
-- _rest_after(rows) → how long to leave it after a look that walked over so many rows; null where it was cheap.
--
-- Contract
--   * While another session keeps dead rows from being cleaned up, a look at few rows walks over all
--     that ever were. Each costs up to 0.1 us: after this rest a twentieth of the time goes into looking.
--   * Counted and not timed, so that a slow moment of the machine changes nothing.
create or replace function moonmind_queue._rest_after(p_rows bigint)
returns interval
language sql
immutable
as $$
    select case when p_rows >= 10000 then least(p_rows * interval '2 us', interval '30 s') end;
$$;

comment on function moonmind_queue._rest_after(bigint) is 'The rest after a look that was dear.';
-- <<<
-- >>> sql/_rest_from_leases.sql
-- _rest_from_leases(now) → void; this session has looked at all leases, and nothing is left to take back.
--
-- Rows alive or dead are reckoned from the size of the table, for a look reads all of it.
create or replace function moonmind_queue._rest_from_leases(p_now timestamptz)
returns void
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
declare
    c_row  constant integer  := 160;  -- bytes
    v_rest constant interval := _rest_after(pg_relation_size('lease') / c_row);
begin
    if v_rest is not null then
        perform set_config('moonmind_queue.leases', (p_now + v_rest)::text, false);
    end if;
end;
$$;

comment on function moonmind_queue._rest_from_leases(timestamptz) is 'Do not look at all leases again too soon.';
-- <<<
-- >>> sql/_rest_in.sql
-- _rest_in(text) → how long a text says that one has to wait; null where it does not say.
--
-- Contract
--   * "try again in 5 minutes", "resets in 1h 20m", "retry-after: 30": the first that there is, up
--     to 31 days.
create or replace function moonmind_queue._rest_in(p_text text)
returns interval
language plpgsql
immutable
set search_path = moonmind_queue, pg_temp
as $$
declare
    c_unit  constant text := '(days?|d|hours?|hrs?|h|minutes?|mins?|m|seconds?|secs?|s)\M';
    v_words text := substring(p_text from '(?i)(?:again|resets?|retry|wait)[^.]{0,40}?\min\s+((?:\d+(?:\.\d+)?\s*' || c_unit || '[\s,]*)+)');
    v_rest  interval;
begin
    if v_words is null then
        v_words := substring(p_text from '(?i)retry-after:?\s+(\d{1,7})\M') || ' s';
    end if;
    select sum(make_interval(secs => part[1]::double precision * case lower(left(part[2], 1))
        when 'd' then 86400 when 'h' then 3600 when 'm' then 60 else 1 end))
    into v_rest
    from regexp_matches(v_words, '(\d{1,7}(?:\.\d+)?)\s*' || c_unit, 'gi') as part;
    return case when v_rest > interval '0' then least(v_rest, interval '31 days') end;
end;
$$;

comment on function moonmind_queue._rest_in(text) is 'The wait that a message asks for.';
-- <<<
-- >>> sql/_restore_tasks.sql
-- _restore_tasks(jobs, dag) → the ids of tasks that were blocked because the file had lost them, and run again.
--
-- Contract
--   * All these jobs are tasks of this DAG from now on.
-- Locks     the jobs are locked by the caller.
-- Events    retried
create or replace function moonmind_queue._restore_tasks(p_jobs jsonb, p_dag text)
returns bigint[]
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_job  job;
    v_back bigint[] := '{}';
begin
    for v_job in
        select job.*
        from job
        join dag_task on dag_task.job_id = job.id
        where job.key in (select wanted ->> 'key' from jsonb_array_elements(p_jobs) as wanted)
          and dag_task.gone
          and job.state = 'blocked'
        order by job.id
    loop
        perform _retry(v_job, _now());
        v_back := v_back || v_job.id;
    end loop;
    insert into dag_task (job_id, dag)
    select job.id, p_dag
    from job
    where job.key in (select wanted ->> 'key' from jsonb_array_elements(p_jobs) as wanted)
    on conflict (job_id) do update set dag = excluded.dag, gone = false
    where (dag_task.dag, dag_task.gone) <> (excluded.dag, false);
    return v_back;
end;
$$;

comment on function moonmind_queue._restore_tasks(jsonb, text) is 'Let tasks that have returned to their DAG run again.';
-- <<<
-- >>> sql/_retry.sql
-- _retry(job, run_at) → its new state; a final or blocked job may run again, its attempts counted anew.
--
-- Contract
--   * Dependents that counted its end as met and have not started wait for it again.
--   * It begins from the start: steps of its publication that were done are not gone on from, and what it
--     has used so far no longer counts against its own budget.
--   * A time to expire that has passed no longer counts: whoever retries a job wants it to run.
-- Locks     the job is locked by the caller; its dependents, in id order.
-- Events    retried; waiting for dependents that were queued.
create or replace function moonmind_queue._retry(p_job moonmind_queue.job, p_run_at timestamptz)
returns text
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_pointless constant boolean := coalesce(p_job.expires_at <= _now(), false);
begin
    perform _hold_dependents(p_job);
    if v_pointless then  -- somebody wants it all the same
        delete from expiry where expires_at = p_job.expires_at and job_id = p_job.id;
    end if;
    update job
    set attempt = 0, result = null, expires_at = case when not v_pointless then expires_at end
    where id = p_job.id;
    update publication set over = true where job_id = p_job.id;
    update usage set over = true where job_id = p_job.id;
    perform _log(p_job.id, 'retried', format('was %s', p_job.state));
    return _queue(p_job.id, p_run_at);
end;
$$;

comment on function moonmind_queue._retry(moonmind_queue.job, timestamptz) is 'Let an ended or blocked job run again.';
-- <<<
-- >>> sql/_ring.sql
-- _ring(agents) → void; wakes whoever sleeps for one of these agents.
--
-- Contract
--   * Who was notified sleeps no longer: only the first producer after a doze() pays for a notification.
--   * No wake-up is lost: whoever falls asleep while we look is told by next_due() to look again
--     until every transaction that was under way then has ended, ours among them. A transaction
--     with one snapshot for all its statements may not see who sleeps, and always notifies.
--   * Waits for nobody: a sleeper whom an open transaction wakes is notified by us as well, for
--     that one may roll back.
-- Notifies  moonmind_queue, once per agent; PostgreSQL folds equal ones of a transaction.
create or replace function moonmind_queue._ring(p_agents text[])
returns void
language plpgsql
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_rung bigint;  -- a data-modifying WITH has to stand at the top, where PERFORM cannot
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        perform pg_notify('moonmind_queue', agent) from unnest(p_agents) as to_wake (agent);
    elsif exists (select from sleeper where agent = any(p_agents || '*'::text)) then
        with awake as (
            delete from sleeper
            where ctid = any (array(
                select ctid from sleeper where agent = any(p_agents || '*'::text) for update skip locked
            ))
        )
        select count(pg_notify('moonmind_queue', to_wake.agent)) into v_rung
        from unnest(p_agents) as to_wake (agent)
        where exists (select from sleeper where sleeper.agent in (to_wake.agent, '*'));
    end if;
end;
$$;

comment on function moonmind_queue._ring(text[]) is 'Wake the workers of agents.';
-- <<<
-- >>> sql/_room.sql
-- _room(lanes, taken) → for each lane that a limit concerns, the scopes that count it and the room left.
--
-- taken are jobs that the caller has taken but not leased yet: they count too.
--
-- Contract
--   * Counted anew from the leases each time, so nothing can leak. The name * serves each name of
--     its scope without a row of its own.
create or replace function moonmind_queue._room(p_lanes integer[], p_taken bigint[] default '{}')
returns table (lane_id integer, scope text, name text, room bigint)
language sql
stable
set search_path = moonmind_queue, pg_temp
as $$
    with held as (
        select lane.*
        from (
            select lease.lane_id from lease
            union all
            select job.lane_id from job where job.id = any (p_taken)
        ) as leased
        join lane on lane.id = leased.lane_id
    ),
    scoped as (
        select lane.id, scope.scope, scope.name
        from lane
        cross join lateral (
            values ('agent', lane.agent), ('kind', lane.kind), ('concurrency_key', lane.concurrency_key)
        ) as scope (scope, name)
        where lane.id = any (p_lanes) and scope.name <> ''
    )
    select scoped.id, scoped.scope, scoped.name,
           applied.max_running - (
               select count(*)
               from held
               where scoped.name = case scoped.scope
                   when 'agent' then held.agent
                   when 'kind' then held.kind
                   else held.concurrency_key
               end
           )
    from scoped
    cross join lateral (
        select run_limit.max_running
        from run_limit
        where run_limit.scope = scoped.scope and run_limit.name in (scoped.name, '*')
        order by run_limit.name = '*'
        limit 1
    ) as applied;
$$;

comment on function moonmind_queue._room(integer[], bigint[]) is 'How many more jobs the limits of each lane allow.';
-- <<<
-- >>> sql/_seal_artifact.sql
-- _seal_artifact(artifact, worker) → void; the bytes are complete: check them and show them.
--
-- Contract
--   * Up to 64 MiB the digest is computed here. Above, the whole would have to stand in memory;
--     there every reader compares it, as the client of this package does for all sizes.
-- Errors    22000 the bytes do not have the announced digest.
create or replace function moonmind_queue._seal_artifact(p_artifact_id bigint, p_worker text)
returns void
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_artifact artifact;
    v_sha256   text;
begin
    update artifact set sealed_at = _now() where id = p_artifact_id returning * into v_artifact;
    if v_artifact.size_bytes <= 64 * 1024 * 1024 then
        select encode(sha256(coalesce(string_agg(content, '' order by start_byte), '')), 'hex') into v_sha256
        from artifact_chunk
        where artifact_id = p_artifact_id;
        if v_sha256 <> v_artifact.sha256 then
            raise exception 'artifact "%" was announced with sha256 % and has %', v_artifact.name, v_artifact.sha256, v_sha256
                using errcode = 'data_exception';
        end if;
    end if;
    perform _log(v_artifact.job_id, 'artifact', v_artifact.name, p_worker => p_worker, p_data => jsonb_build_object(
        'id', v_artifact.id, 'attempt', v_artifact.attempt, 'content_type', v_artifact.content_type,
        'size_bytes', v_artifact.size_bytes, 'sha256', v_artifact.sha256
    ));
end;
$$;

comment on function moonmind_queue._seal_artifact(bigint, text) is 'Check a complete artifact and make it visible.';
-- <<<
-- >>> sql/_spend.sql
-- _spend(lane) → in words which budget that others share is used up for this lane; null when none is.
--
-- Contract
--   * What is used up is written down, so that no claim has to add up.
-- Locks     the caller has them: _lock_budgets().
create or replace function moonmind_queue._spend(p_lane moonmind_queue.lane)
returns text
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
begin
    insert into spent_budget (scope, name, period, until, reason)
    select scope, name, period, until, reason
    from budget_overview
    where used_up
      and (scope, name) in (('repository', p_lane.repository), ('agent', p_lane.agent), ('queue', '*'))
    on conflict (scope, name, period) do update set until = excluded.until, reason = excluded.reason;
    return _spent(p_lane.agent, p_lane.repository);
end;
$$;

comment on function moonmind_queue._spend(moonmind_queue.lane) is 'Write down the budgets that are used up now.';
-- <<<
-- >>> sql/_spent.sql
-- _spent(agent, repository) → in words which budget of theirs is used up, the one that lasts longest; null when none is.
create or replace function moonmind_queue._spent(p_agent text, p_repository text)
returns text
language plpgsql
stable
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
as $$
begin
    return (
        select reason
        from spent_budget
        where (scope, name) in (('repository', p_repository), ('agent', p_agent), ('queue', '*'))
          and (until is null or until > _now())
        order by until desc nulls first, scope
        limit 1
    );
end;
$$;

comment on function moonmind_queue._spent(text, text) is 'Whether a budget is used up.';
-- <<<
-- >>> sql/_take.sql
-- _take(lanes, limit, now, floor, skip) → ids of the most urgent jobs of these lanes, locked and
--         out of ready; where to look from next time; and how many rows that are gone it walked over.
--
-- floor has, by lane, the rank below which it does not look: index entries of jobs that were taken
-- stay until vacuum comes, and every claim would walk them all. skip is how many of those above to
-- pass by, because others are about to take them.
--
-- Contract
--   * Merges the heads of the lanes without locking, then locks their jobs in that order and skips
--     what another session holds; looks further down only when that left it with too few.
--   * Who deletes the row of ready has the job: a row that was gone already is no claim.
--   * The dependency subquery guards the claim: no job is taken whose needs are not all met.
--   * Jobs that have become pointless are left for reclaim() to cancel.
--   * gone counts the entries that the index gave and that led to no row: there are many of them
--     where another session keeps them from being cleaned up. 0 with track_counts off.
-- Locks     rows of job, skip locked; then those of ready, which nobody else can hold now.
create or replace function moonmind_queue._take(
    p_lanes     integer[],
    p_limit     integer,
    p_now       timestamptz,
    p_floor     jsonb default '{}',
    p_skip      integer default 0,
    out job_ids bigint[],
    out floor   jsonb,
    out gone    bigint
)
language plpgsql
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set enable_hashjoin = off
set max_parallel_workers_per_gather = 0
set enable_mergejoin = off
set enable_bitmapscan = off
as $$
declare
    v_depth integer := p_limit + 10;
    v_gone  bigint  := pg_stat_get_xact_tuples_returned('ready_order_idx'::regclass)
        - pg_stat_get_xact_tuples_fetched('ready_order_idx'::regclass);
    v_seen  integer;
    v_more  bigint[];
    v_floor jsonb;
begin
    job_ids := '{}';
    floor := p_floor;
    loop
        with heads as materialized (
            select head.*
            from (
                select id, coalesce((p_floor ->> id::text)::bigint, -9223372036854775808) as floor
                from unnest(p_lanes) as id
            ) as lane
            cross join lateral (
                select r.ctid as place, r.rank, r.job_id
                from ready r
                where r.lane_id = lane.id and r.rank >= lane.floor
                order by r.rank, r.job_id
                limit p_skip + v_depth
            ) as head
            order by head.rank, head.job_id
            limit v_depth offset p_skip
        ),
        locked as materialized (  -- in the order of heads, and no more than wanted
            select heads.place
            from heads
            cross join lateral (  -- a fence: from each head to its job, whatever statistics say
                select
                from job
                where job.id = heads.job_id
                  and job.state = 'queued'
                  and (job.expires_at is null or job.expires_at > p_now)
                  and not exists (
                      select from dependency
                      left join job as needed on needed.id = dependency.needs_job_id
                      where dependency.job_id = job.id
                        and not _is_met(needed.state, job.on_dependency_failure)
                  )
                for update of job skip locked
            ) as mine
            limit p_limit - cardinality(job_ids)
        ),
        taken as (
            delete from ready
            where ctid = any (array(select locked.place from locked))
            returning ready.job_id, ready.lane_id, ready.rank
        ),
        reached as (
            select lane_id, array_agg(job_id) as ids, max(rank) as rank from taken group by lane_id
        )
        select (select count(*) from heads),
               array(select unnest(ids) from reached),
               jsonb_object_agg(lane_id, rank),
               pg_stat_get_xact_tuples_returned('ready_order_idx'::regclass)
               - pg_stat_get_xact_tuples_fetched('ready_order_idx'::regclass) - v_gone
        into v_seen, v_more, v_floor, gone
        from reached;

        job_ids := job_ids || v_more;
        floor := floor || coalesce(v_floor, '{}');
        exit when cardinality(job_ids) >= p_limit or v_seen < v_depth;
        v_depth := v_depth * 4;
    end loop;
end;
$$;

comment on function moonmind_queue._take(integer[], integer, timestamptz, jsonb, integer) is 'Lock the most urgent claimable jobs.';
-- <<<
-- >>> sql/_take_back.sql
-- _take_back(job) → its new state; null where dependents are locked and the next reclaim() must do it.
--
-- Locks     the job and its lease are locked by the caller; its dependents, skip locked.
-- Notifies  moonmind_queue; moonmind_queue_control with the worker's name.
-- Events    expired or timed_out, then dead_lettered or cancelled where it applies.
create or replace function moonmind_queue._take_back(p_job_id bigint)
returns text
language plpgsql
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_now       constant timestamptz := _now();
    v_job       job;
    v_lease     lease;
    v_timed_out boolean;
    v_reason    text;
begin
    select * into v_job from job where id = p_job_id;
    select * into v_lease from lease where job_id = p_job_id;
    if (v_lease.cancel_requested_at is not null or v_job.attempt >= v_job.max_attempts or v_job.expires_at is not null)
        and not _lock_dependents(p_job_id, false)
    then
        return null;
    end if;
    v_timed_out := v_lease.deadline_at <= v_now;
    v_reason := case
        when v_timed_out then format('attempt %s took longer than its timeout', v_job.attempt)
        else format('the lease of %s ran out', v_lease.worker)
    end;

    perform _log(p_job_id, case when v_timed_out then 'timed_out' else 'expired' end, v_reason, 'warn', v_lease.worker,
                 jsonb_build_object('attempt', v_job.attempt, 'expired_at', v_lease.expires_at));
    perform pg_notify('moonmind_queue_control', v_lease.worker);
    if v_lease.cancel_requested_at is not null then
        return _end(p_job_id, 'cancelled', v_lease.cancel_reason, 'cancelled', 'warn');
    elsif v_job.attempt >= v_job.max_attempts then
        return _end(p_job_id, 'dead_letter', v_reason || format(', the last of %s', v_job.max_attempts),
                    'dead_lettered', 'error', p_data => jsonb_build_object('attempts', v_job.attempt));
    end if;
    update job set error = v_reason where id = p_job_id;
    return _queue(p_job_id, v_now + case
        when not v_timed_out and _lost_leases(p_job_id) <= 1 then interval '1 s'
        else _backoff(v_job.kind, v_job.attempt)
    end);
end;
$$;

comment on function moonmind_queue._take_back(bigint) is 'End a lease that ran out.';
-- <<<
-- >>> sql/_take_next.sql
-- _take_next(lanes, limit, now) → ids of the most urgent jobs of these lanes, locked and out of ready, for a claim.
--
-- Contract
--   * Of fewer than a hundred, always the most urgent; unless this session has found that a look at all of them is dear.
-- Locks     as _take(), and _take_onwards() for many.
create or replace function moonmind_queue._take_next(p_lanes integer[], p_limit integer, p_now timestamptz)
returns bigint[]
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
declare
    c_many  constant boolean := p_limit >= 100;
    v_taken record;
begin
    if c_many or current_setting('moonmind_queue.floor', true) <> '' then
        return _take_onwards(p_lanes, p_limit, p_now, c_many);
    end if;
    v_taken := _take(p_lanes, p_limit, p_now);
    if _rest_after(v_taken.gone) is not null then
        perform _keep_floor(v_taken.floor, p_now + _rest_after(v_taken.gone), true);
    end if;
    return v_taken.job_ids;
end;
$$;

comment on function moonmind_queue._take_next(integer[], integer, timestamptz) is 'Lock the most urgent claimable jobs.';
-- <<<
-- >>> sql/_take_onwards.sql
-- _take_onwards(lanes, limit, now, many) → as _take(), going on where this session's last claim ended.
--
-- Contract
--   * For claims of many, and for all while a full look is dear: where another session keeps dead
--     rows from being cleaned up, it walks them all.
--   * What came below that meanwhile (a late commit, a retry, a higher priority, what another left)
--     is found by a full look: where there is too little above, or a second later. After a dear
--     look only so much later that looking takes a twentieth of the time, and within 30 seconds.
--   * Those who take many at once begin one behind the other, each a limit further down: what
--     another is about to take would have to be tried row by row.
--   * Where to go on is a setting of the session, and a hint: whoever uses the session next, as
--     behind a pooler, may follow it, for it holds of the lanes and not of a worker.
-- Locks     an advisory lock, the place in that order, until the transaction ends; then as _take().
create or replace function moonmind_queue._take_onwards(p_lanes integer[], p_limit integer, p_now timestamptz, p_many boolean)
returns bigint[]
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
declare
    c_places  constant integer  := 16;
    c_soonest constant interval := interval '1 s';
    v_hint  record  := _floor(p_now);
    v_above jsonb   := case when p_many or v_hint.dear then v_hint.above else '{}' end;
    v_place integer := 0;
    v_taken record;
    v_more  record;
    v_gone  bigint;
    v_ids   bigint[];
begin
    if p_many then
        select coalesce(min(place), c_places) into v_place
        from (
            select place
            from generate_series(0, c_places - 1) as place
            where pg_try_advisory_xact_lock(
                hashtextextended('moonmind_queue.claim', c_places * coalesce(p_lanes[1], 0)::bigint + place)
            )
            limit 1
        ) as free;
    end if;
    v_taken := _take(p_lanes, p_limit, p_now, v_above, v_place * p_limit);
    v_ids := v_taken.job_ids;
    v_gone := v_taken.gone;
    if cardinality(v_ids) < p_limit and (v_place > 0 or v_above <> '{}' and not v_hint.dear) then
        v_above := case when v_hint.dear then v_above else '{}' end;
        v_more := _take(p_lanes, p_limit - cardinality(v_ids), p_now, v_above);
        v_ids := v_ids || v_more.job_ids;
        v_gone := v_gone + v_more.gone;
    end if;
    if v_above = '{}' then  -- everything was looked at
        v_hint.dear := _rest_after(v_gone) is not null;
        v_hint.until := p_now + greatest(_rest_after(v_gone), c_soonest);
    end if;

    -- Too little: whatever comes now is to be found at once, unless that is dear.
    if v_hint.dear or p_many and cardinality(v_ids) = p_limit then
        perform _keep_floor(v_hint.above || v_taken.floor, v_hint.until, v_hint.dear);
    elsif p_many and v_above = '{}' or v_hint.above = '{}' then
        perform set_config('moonmind_queue.floor', '', false);
    end if;
    return v_ids;
end;
$$;

comment on function moonmind_queue._take_onwards(integer[], integer, timestamptz, boolean)
is 'Lock the most urgent claimable jobs, from where the last claim ended.';
-- <<<
-- >>> sql/_take_these.sql
-- _take_these(jobs, lanes, limit, now) → those of the jobs that are claimable, locked and out of ready.
--
-- Contract
--   * What _take() demands of a job holds here too: its lane is one of these, it is due, all its
--     needs are met, the limits leave room, and nobody else has it locked.
-- Locks     rows of job, skip locked, then those of ready; the limits as _lock_room() does.
create or replace function moonmind_queue._take_these(
    p_job_ids bigint[],
    p_lanes   integer[],
    p_limit   integer,
    p_now     timestamptz
)
returns bigint[]
language plpgsql
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_job   job;
    v_taken bigint[] := '{}';
begin
    for v_job in
        select job.*
        from job
        where id = any (p_job_ids)
          and state = 'queued'
          and lane_id = any (p_lanes)
          and (expires_at is null or expires_at > p_now)
          and not exists (
              select from dependency
              left join job as needed on needed.id = dependency.needs_job_id
              where dependency.job_id = job.id
                and not _is_met(needed.state, job.on_dependency_failure)
          )
        order by rank, id
        for update of job skip locked
    loop
        exit when cardinality(v_taken) >= p_limit;
        continue when exists (select from run_limit) and not _lock_room(v_job.lane_id, v_taken);
        delete from ready
        where lane_id = v_job.lane_id and rank = v_job.rank and job_id = v_job.id;
        if found then  -- else its time has not come
            v_taken := v_taken || v_job.id;
        end if;
    end loop;
    return v_taken;
end;
$$;

comment on function moonmind_queue._take_these(bigint[], integer[], integer, timestamptz) is 'Lock those of some jobs that can be claimed.';
-- <<<
-- >>> sql/_take_within_limits.sql
-- _take_within_limits(lanes, limit, now) → as _take(), and no limit is exceeded however many claim at once.
--
-- Contract
--   * One job at a time: the lane with the most urgent head, the scopes that count it locked, the
--     room counted under these locks. A scope that another claim has locked is passed over.
-- Locks     an advisory lock for each scope, until the transaction ends; then as _take().
-- Errors    25000 not read committed: the count would be that of a moment before the locks.
create or replace function moonmind_queue._take_within_limits(p_lanes integer[], p_limit integer, p_now timestamptz)
returns bigint[]
language plpgsql
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set enable_hashjoin = off
set max_parallel_workers_per_gather = 0
set enable_mergejoin = off
as $$
declare
    v_taken bigint[]  := '{}';
    v_more  bigint[];
    v_open  integer[] := _with_room(p_lanes);
    v_lane  integer;
begin
    while cardinality(v_taken) < p_limit loop
        select head.lane_id into v_lane
        from unnest(v_open) as lane (id)
        cross join lateral (
            select r.lane_id, r.rank, r.job_id
            from ready r
            cross join lateral (  -- a fence: from each head to its job, whatever statistics say
                select from job where id = r.job_id and (expires_at is null or expires_at > p_now) offset 0
            ) as live
            where r.lane_id = lane.id
            order by r.rank, r.job_id
            limit 1
        ) as head
        order by head.rank, head.job_id
        limit 1;
        exit when not found;

        v_more := case when _lock_room(v_lane, v_taken) then (_take(array[v_lane], 1, p_now)).job_ids else '{}' end;
        v_taken := v_taken || v_more;
        if v_more = '{}' then
            v_open := array_remove(v_open, v_lane);
        end if;
    end loop;
    return v_taken;
end;
$$;

comment on function moonmind_queue._take_within_limits(integer[], integer, timestamptz)
is 'Lock the most urgent claimable jobs, as many as the limits allow.';
-- <<<
-- >>> sql/_task_changes.sql
-- _task_changes(jobs) → those jobs that exist and say something else than these, and the jobs that each is to need.
--
-- Contract
--   * jobs is what _task_jobs() made. The names of what is different are in changed.
create or replace function moonmind_queue._task_changes(p_jobs jsonb)
returns table (job_id bigint, wanted jsonb, needs bigint[], changed text[])
language plpgsql
stable
set search_path = moonmind_queue, pg_temp
as $$
#variable_conflict use_column
begin
    return query
    with given as materialized (
        select wanted, rec.*, array(
            select distinct needed.id
            from jsonb_array_elements_text(wanted -> 'after') as after (task)
            join job as needed on needed.key = after.task
            order by needed.id
        ) as needs
        from jsonb_array_elements(p_jobs) as wanted
        cross join lateral jsonb_to_record(wanted) as rec (
            key text, name text, agent text, kind text, payload jsonb, priority integer,
            max_attempts integer, timeout interval, capabilities text[]
        )
    ),
    compared as (
        select job.id, given.wanted, given.needs, array_remove(array[
            case when job.name is distinct from given.name then 'name' end,
            case when job.agent <> given.agent then 'agent' end,
            case when job.kind <> given.kind then 'kind' end,
            case when job.payload <> given.payload then 'payload' end,
            case when job.priority <> coalesce(given.priority, 0) then 'priority' end,
            case when job.max_attempts <> coalesce(given.max_attempts, 3) then 'max_attempts' end,
            case when job.timeout is distinct from given.timeout then 'timeout' end,
            case when lane.capabilities <> _capabilities(given.capabilities) then 'capabilities' end,
            case when given.needs <> array(
                select needs_job_id from dependency where dependency.job_id = job.id order by needs_job_id
            ) then 'deps' end
        ], null) as changed
        from given
        join job on job.key = given.key
        join lane on lane.id = job.lane_id
    )
    select id, wanted, needs, changed from compared where changed <> '{}' order by id;
end;
$$;

comment on function moonmind_queue._task_changes(jsonb) is 'What seeding would change of jobs that exist.';
-- <<<
-- >>> sql/_task_event.sql
-- _task_event(type) → an event in the words of Agentmux.
--
-- The one place that says so. Agentmux has eight words for what happens to a task; what it has none
-- for is progress. Whatever ends an attempt or the task badly is a failure: an attempt that was lost
-- with its worker, one that a person has to look at, and a cancelled task too. No search_path is
-- pinned, for the same reason as in _task_state().
create or replace function moonmind_queue._task_event(p_type text)
returns text
language sql
immutable
as $$
    select case
        when p_type in ('created', 'ready', 'claimed', 'started', 'completed', 'failed', 'released')
            then 'TASK_' || upper(p_type)
        when p_type = 'retried' then 'TASK_READY'
        when p_type = 'unlocked' then 'TASK_RELEASED'
        when p_type in ('expired', 'timed_out', 'blocked', 'cancelled') then 'TASK_FAILED'
        else 'TASK_PROGRESS'
    end;
$$;

comment on function moonmind_queue._task_event(text) is 'How Agentmux calls an event.';
-- <<<
-- >>> sql/_task_jobs.sql
-- _task_jobs(tasks) → the tasks as jobs, in the words of enqueue_many().
--
-- The one place that says how: a task's id is the job's key, its payload names the kind, which is
-- noop where it does not.
create or replace function moonmind_queue._task_jobs(p_tasks jsonb)
returns jsonb
language sql
immutable
set search_path = moonmind_queue, pg_temp
as $$
    select coalesce(jsonb_agg(
        task - '{id,deps,payload}'::text[] || jsonb_build_object(
            'key', task -> 'id',
            'kind', coalesce(task -> 'payload' ->> 'kind', 'noop'),
            'payload', coalesce(task -> 'payload', '{}') - 'kind',
            'after', coalesce(task -> 'deps', '[]')
        ) order by place
    ), '[]')
    from jsonb_array_elements(p_tasks) with ordinality as element (task, place);
$$;

comment on function moonmind_queue._task_jobs(jsonb) is 'Tasks of Agentmux as jobs.';
-- <<<
-- >>> sql/_task_state.sql
-- _task_state(state) → the state in the words of Agentmux.
--
-- The one place that says so. Agentmux has no cancelled of its own, so that stays itself. No
-- search_path is pinned: it names nothing that one could replace, and so the planner puts it into
-- the statements that use it.
create or replace function moonmind_queue._task_state(p_state text)
returns text
language sql
immutable
as $$
    select case p_state
        when 'waiting' then 'READY'
        when 'queued' then 'READY'
        when 'succeeded' then 'DONE'
        when 'dead_letter' then 'FAILED'
        else upper(p_state)
    end;
$$;

comment on function moonmind_queue._task_state(text) is 'How Agentmux calls a state.';
-- <<<
-- >>> sql/_tell_overspent.sql
-- _tell_overspent(job, worker, reason) → void; that a budget is used up, told once since the job was claimed.
--
-- Events    overspent
create or replace function moonmind_queue._tell_overspent(p_job_id bigint, p_worker text, p_reason text)
returns void
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
begin
    if 'overspent' is distinct from (
        select type from event where job_id = p_job_id and type in ('claimed', 'overspent') order by seq desc limit 1
    ) then
        perform _log(p_job_id, 'overspent', p_reason, 'warn', p_worker);
    end if;
end;
$$;

comment on function moonmind_queue._tell_overspent(bigint, text, text) is 'Tell that a budget is used up.';
-- <<<
-- >>> sql/_token_cost.sql
-- _token_cost(price, input, cached_input, output) → what tokens cost at this price; null without one.
--
-- Contract
--   * Tokens read from the cache are part of the input, and thoughts part of the output.
create or replace function moonmind_queue._token_cost(
    p_price        moonmind_queue.token_price,
    p_input        numeric,
    p_cached_input numeric,
    p_output       numeric
)
returns numeric
language sql
immutable
set search_path = moonmind_queue, pg_temp
as $$
    select trim_scale((
        (p_input - least(p_cached_input, p_input)) * p_price.input
        + least(p_cached_input, p_input) * p_price.cached_input
        + p_output * p_price.output
    ) / 1000000);
$$;

comment on function moonmind_queue._token_cost(moonmind_queue.token_price, numeric, numeric, numeric) is 'What tokens cost.';
-- <<<
-- >>> sql/_unmet.sql
-- _unmet(job) → how many of its dependencies are not met.
create or replace function moonmind_queue._unmet(p_job_id bigint)
returns integer
language plpgsql
stable
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set enable_hashjoin = off
set max_parallel_workers_per_gather = 0
set enable_mergejoin = off
as $$
begin
    return (
        select count(*)
        from dependency
        join job on job.id = dependency.job_id
        left join job as needed on needed.id = dependency.needs_job_id
        where dependency.job_id = p_job_id and not _is_met(needed.state, job.on_dependency_failure)
    );
end;
$$;

comment on function moonmind_queue._unmet(bigint) is 'Count the edges that a job waits for.';
-- <<<
-- >>> sql/_with_room.sql
-- _with_room(lanes) → those of the lanes whose limits leave room for at least one more job.
create or replace function moonmind_queue._with_room(p_lanes integer[])
returns integer[]
language sql
stable
set search_path = moonmind_queue, pg_temp
as $$
    select array(
        select id
        from unnest(p_lanes) as id
        where id not in (select lane_id from _room(p_lanes) where room <= 0)
    );
$$;

comment on function moonmind_queue._with_room(integer[]) is 'The lanes whose limits leave room.';
-- <<<
-- >>> sql/_withdraw.sql
-- _withdraw(job) → void; takes a queued job out of the claimable set again.
--
-- Contract
--   * Looks into scheduled first: where a claim is just moving the job to ready, that waits for
--     the claim to commit, and finds the row in ready then.
-- Locks     the job is locked by the caller; its row in scheduled or ready.
create or replace function moonmind_queue._withdraw(p_job moonmind_queue.job)
returns void
language plpgsql
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
begin
    delete from scheduled
    where lane_id = p_job.lane_id and run_at = p_job.run_at and job_id = p_job.id;
    if not found then
        delete from ready
        where lane_id = p_job.lane_id and rank = p_job.rank and job_id = p_job.id;
    end if;
end;
$$;

comment on function moonmind_queue._withdraw(moonmind_queue.job) is 'Take a queued job out of the claimable set.';
-- <<<
-- >>> sql/add_schedule.sql
-- add_schedule(name, cron, job, timezone, catch_up, next_at) → 'created', 'updated' or 'unchanged'.
--
-- Contract
--   * The same definition again changes nothing, its next occurrence included; call it at each
--     deployment. Another definition replaces the first; a new cron or time zone brings next_at.
--   * job has the parameters of enqueue() as names, as in enqueue_many(), without key, run_at and
--     after: each occurrence brings its own. It is tried out, so what enqueue would refuse is
--     refused here.
--   * next_at is the first occurrence; the database cannot read cron. Without it a worker computes
--     it at once, and keeps what is wrong with cron in schedule_overview.error.
-- Locks     the schedule.
-- Notifies  moonmind_queue, for sleeping workers have another instant to wake at.
-- Errors    22023 unknown time zone, a job that cannot be enqueued; 23514 a value that a table refuses.
create or replace function moonmind_queue.add_schedule(
    p_name     text,
    p_cron     text,
    p_job      jsonb,
    p_timezone text        default 'UTC',
    p_catch_up text        default 'once',
    p_next_at  timestamptz default null
)
returns text
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_now      constant timestamptz := _now();
    v_cron     constant text := regexp_replace(trim(p_cron), '\s+', ' ', 'g');
    v_timezone constant text := coalesce(p_timezone, 'UTC');
    v_revision integer;
begin
    if p_name is null or v_cron is null then
        raise exception 'a schedule needs a name and a cron expression, not % and %',
            coalesce(left(p_name, 100), 'null'), coalesce(left(v_cron, 100), 'null')
            using errcode = 'invalid_parameter_value';
    end if;
    -- "at time zone" would take any nonsense with a digit for an offset.
    if not exists (select from pg_timezone_names where name = v_timezone) then
        raise exception 'schedule %: unknown time zone "%"; give an IANA name such as Europe/Berlin',
            left(p_name, 100), left(v_timezone, 100)
            using errcode = 'invalid_parameter_value';
    end if;
    perform _check_template(p_name, p_job);

    insert into schedule (name, cron, timezone, job, catch_up, next_at, created_at, updated_at)
    values (p_name, v_cron, v_timezone, p_job, coalesce(p_catch_up, 'once'), p_next_at, v_now, v_now)
    on conflict (name) do update
    set cron = excluded.cron,
        timezone = excluded.timezone,
        job = excluded.job,
        catch_up = excluded.catch_up,
        next_at = case
            when (schedule.cron, schedule.timezone) = (excluded.cron, excluded.timezone) then schedule.next_at
            else excluded.next_at
        end,
        revision = schedule.revision + 1,
        error = null,
        retry_at = null,
        updated_at = v_now
    where (schedule.cron, schedule.timezone, schedule.job, schedule.catch_up)
        <> (excluded.cron, excluded.timezone, excluded.job, excluded.catch_up)
    returning revision into v_revision;
    if not found then
        return 'unchanged';
    end if;

    perform _ring(array[coalesce(p_job ->> 'agent', 'codex')]);
    return case v_revision when 1 then 'created' else 'updated' end;
end;
$$;

comment on function moonmind_queue.add_schedule(text, text, jsonb, text, text, timestamptz)
is 'Add a schedule, or change the one of that name.';
-- <<<
-- >>> sql/append_artifact.sql
-- append_artifact(artifact, token, content) → how many bytes have come so far.
--
-- Contract
--   * By the lease holder only. The last byte seals the artifact; then everybody sees it.
-- Locks     the job, its lease.
-- Events    artifact, with the last byte.
-- Errors    MQ001, MQ002; 22023 no content, no open artifact of this token, or more bytes than announced;
--           22000 the bytes do not have the announced digest.
create or replace function moonmind_queue.append_artifact(p_artifact_id bigint, p_token bigint, p_content bytea)
returns bigint
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_artifact artifact;
    v_lease    lease;
    v_start    bigint;
    v_size     bigint;
begin
    if p_content is null then
        raise exception 'append_artifact needs content, not null' using errcode = 'invalid_parameter_value';
    end if;
    select * into v_artifact from artifact where id = p_artifact_id and token = p_token;
    if found then
        v_lease := _lock_lease(v_artifact.job_id, p_token);
        select * into v_artifact from artifact where id = p_artifact_id and sealed_at is null;
    end if;
    if not found then
        raise exception 'token % has no open artifact %', p_token, p_artifact_id
            using errcode = 'invalid_parameter_value';
    end if;

    select coalesce(max(start_byte + octet_length(content)), 0) into v_start
    from (
        select start_byte, content
        from artifact_chunk
        where artifact_id = p_artifact_id
        order by start_byte desc
        limit 1
    ) as last;
    v_size := v_start + octet_length(p_content);
    if v_size > v_artifact.size_bytes then
        raise exception 'artifact "%" was announced with % bytes and got %', v_artifact.name, v_artifact.size_bytes, v_size
            using errcode = 'invalid_parameter_value';
    end if;
    if octet_length(p_content) = 0 then
        return v_start;
    end if;
    insert into artifact_chunk (artifact_id, start_byte, content) values (p_artifact_id, v_start, p_content);
    if v_size = v_artifact.size_bytes then
        perform _seal_artifact(p_artifact_id, v_lease.worker);
    end if;
    return v_size;
end;
$$;

comment on function moonmind_queue.append_artifact(bigint, bigint, bytea) is 'Send the next bytes of an open artifact.';
-- <<<
-- >>> sql/append_event.sql
-- append_event(job, token, type, message, level, data) → the number of the event.
--
-- Contract
--   * By the lease holder only. The words of the queue's own transitions are refused, so that a
--     history can be believed.
-- Locks     the job, its lease.
-- Errors    MQ001, MQ002; 22023 a type that is not a lower-case word or is the queue's own, a
--           message above 64 KiB or data above 256 KiB; 23514 unknown level.
create or replace function moonmind_queue.append_event(
    p_job_id  bigint,
    p_token   bigint,
    p_type    text,
    p_message text  default '',
    p_level   text  default 'info',
    p_data    jsonb default null
)
returns bigint
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_own   constant text[] := '{created,ready,waiting,claimed,started,completed,failed,released,expired,timed_out,cancel_requested,cancelled,blocked,dead_lettered,retried,unlocked,repaired,scheduled,artifact,updated,removed,published,said,overspent}';
    v_lease constant lease := _lock_lease(p_job_id, p_token);
begin
    if p_type is null or p_type !~ '^[a-z][a-z_]{0,62}$' or p_type = any (v_own) then
        raise exception 'an event type of a holder is a lower-case word that the queue does not use itself, not %', left(p_type, 100)
            using errcode = 'invalid_parameter_value';
    end if;
    if octet_length(p_message) > 65536 or pg_column_size(p_data) > 262144 then
        raise exception 'an event holds at most 64 KiB of message and 256 KiB of data'
            using errcode = 'invalid_parameter_value';
    end if;
    return _log(p_job_id, p_type, p_message, coalesce(p_level, 'info'), v_lease.worker, p_data);
end;
$$;

comment on function moonmind_queue.append_event(bigint, bigint, text, text, text, jsonb) is 'Add to the history of a job that one holds.';
-- <<<
-- >>> sql/append_log.sql
-- append_log(job, token, content, stream, stage) → where the piece stands in the job's live log.
--
-- Contract
--   * By the lease holder only. A piece is as many whole lines as have come since the last one:
--     send a few a second, not one for each line.
--   * Positions of a job grow in the order in which pieces are committed, so a reader that goes on
--     from the last one it saw misses nothing. They have gaps.
--   * For reading along. What must be kept is an artifact; the log goes with its job.
-- Locks     the job, its lease.
-- Errors    MQ001, MQ002, MQ004; 22023 no content or more than 256 KiB; 23514 a stream that is neither
--           stdout nor stderr, a stage above 100 characters.
create or replace function moonmind_queue.append_log(
    p_job_id  bigint,
    p_token   bigint,
    p_content text,
    p_stream  text default 'stdout',
    p_stage   text default ''
)
returns bigint
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_lease constant lease := _lock_lease(p_job_id, p_token);
    v_pos   bigint;
begin
    if p_content is null or octet_length(p_content) > 262144 then
        raise exception 'a piece of a log has up to 256 KiB, not %', coalesce(octet_length(p_content)::text, 'null')
            using errcode = 'invalid_parameter_value';
    end if;
    insert into log_chunk (job_id, at, attempt, stage, stream, content)
    values (p_job_id, _now(), v_lease.attempt, coalesce(p_stage, ''), coalesce(p_stream, 'stdout'), p_content)
    returning pos into v_pos;
    return v_pos;
end;
$$;

comment on function moonmind_queue.append_log(bigint, bigint, text, text, text) is 'Add to the live log of a job that one holds.';
-- <<<
-- >>> sql/begin_step.sql
-- begin_step(job, token, step, content, data) → the step as it stands: since when, whether it is done, its data.
--
-- Called immediately before an effect outside of the database, such as a push.
--
-- Contract
--   * By the lease holder only: who has lost the lease learns it here, before the effect.
--   * The same step with the same content was begun before, by this attempt or another: its data
--     and its first beginning are returned, and whether it was done.
-- Locks     the job, its lease.
-- Errors    MQ001, MQ002; 22023 data above 64 KiB; 23514 a step that is no word, content above 500
--           characters, data that is no object.
create or replace function moonmind_queue.begin_step(
    p_job_id  bigint,
    p_token   bigint,
    p_step    text,
    p_content text  default '',
    p_data    jsonb default '{}'
)
returns table (begun_at timestamptz, done boolean, data jsonb)
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
#variable_conflict use_column
begin
    perform _lock_lease(p_job_id, p_token);
    perform _check_text('data', p_data::text);
    return query
    insert into publication (job_id, step, content, token, data, begun_at)
    values (p_job_id, coalesce(p_step, ''), coalesce(p_content, ''), p_token, coalesce(p_data, '{}'), _now())
    on conflict (job_id, step, content) do update set token = excluded.token, over = false
    returning begun_at, done_at is not null, data;
end;
$$;

comment on function moonmind_queue.begin_step(bigint, bigint, text, text, jsonb) is 'Say what one is about to do outside of the database.';
-- <<<
-- >>> sql/cancel.sql
-- cancel(job, reason) → the job's state now.
--
-- Contract
--   * Not leased: cancelled at once. Leased: the request is recorded and wins over everything but
--     a completion that came first; the holder hears of it at once, and at its next renewal.
--   * A second request changes nothing, and so does one for a cancelled job.
-- Locks     the job; its row in ready or scheduled, or its lease; its dependents, in id order.
--           Waits for them: never "not found".
-- Notifies  moonmind_queue_control with the worker's name.
-- Events    cancelled or cancel_requested
-- Errors    22023 reason above 64 KiB; MQ002; MQ003 when the job ended otherwise.
create or replace function moonmind_queue.cancel(p_job_id bigint, p_reason text default null)
returns text
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_job    constant job := _lock_job(p_job_id);
    v_reason constant text := coalesce(p_reason, 'cancelled by ' || session_user);
    v_worker text;
begin
    perform _check_text('reason', p_reason);
    case v_job.state
        when 'cancelled' then
            null;
        when 'succeeded', 'failed', 'dead_letter' then
            raise exception 'job % has ended already: it is %', p_job_id, v_job.state using errcode = 'MQ003';
        when 'claimed', 'running' then
            update lease
            set cancel_requested_at = _now(), cancel_reason = v_reason
            where job_id = p_job_id and cancel_requested_at is null
            returning worker into v_worker;
            if found then
                perform _log(p_job_id, 'cancel_requested', v_reason, 'warn');
                perform pg_notify('moonmind_queue_control', v_worker);
            end if;
        else
            if v_job.state = 'queued' then
                perform _withdraw(v_job);
            end if;
            return _end(p_job_id, 'cancelled', v_reason, 'cancelled', 'warn');
    end case;
    return v_job.state;
end;
$$;

comment on function moonmind_queue.cancel(bigint, text) is 'Cancel a job, or ask its worker to stop.';
-- <<<
-- >>> sql/claim.sql
-- claim(worker, agents, kinds, capabilities, limit, lease, start, job_ids) → the jobs now leased, most urgent first.
--
-- Contract
--   * Takes only jobs that are due, of the given agents and kinds (null: all) that are not paused,
--     whose required capabilities are all offered, whose dependencies are all met, within the
--     limits of run_limit and the policy of the login.
--   * The most urgent first. A claim of 100 or more may be a second late to notice one that came
--     before those of the last claim, or that another claim as large was thought to take; while a
--     session keeps dead rows from being cleaned up any claim may be, and up to 30 seconds.
--   * With job_ids only of these. One that is not claimable now is not returned.
--   * Each job is claimed, or running at once with start; its attempt is one higher and its token
--     new. The pair (id, token) is the lease: every write of the holder carries it.
--   * lasts is how long the lease holds from now: the lease, or what the job's timeout leaves.
--   * Returns fewer than limit, or nothing, when there is not enough work. Never waits: what
--     another session has locked is skipped. Commit soon: what is returned stays locked, and so does
--     a job that another session claimed at that very moment.
--   * Does not touch expired leases; that is reclaim().
-- Locks     rows of job and ready, in claim order, skip locked.
-- Events    claimed, and started with start.
-- Errors    22023 worker blank or above 200 characters, limit below 1, lease not between 0 and a day;
--           MQ004 a worker, agents or kinds that the login's policy does not admit; 25000 limits
--           apply and the transaction is not read committed.
create or replace function moonmind_queue.claim(
    p_worker       text,
    p_agents       text[]   default null,
    p_kinds        text[]   default null,
    p_capabilities text[]   default '{}',
    p_limit        integer  default 1,
    p_lease        interval default interval '120 s',
    p_start        boolean  default false,
    p_job_ids      bigint[] default null
)
returns table (
    id bigint, kind text, agent text, name text, key text, payload jsonb, priority integer,
    attempt integer, max_attempts integer, token bigint, expires_at timestamptz, lasts interval
)
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set enable_hashjoin = off
set max_parallel_workers_per_gather = 0
set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
    c_most   constant integer := 100000;
    v_now    constant timestamptz := _now();
    v_policy constant policy := _policy();
    v_lanes   integer[];
    v_ids     bigint[];
    v_limited boolean;
    v_due     boolean;   -- whether something scheduled is due
    v_default interval;  -- the timeout, when it serves every kind
begin
    perform _check_worker(p_worker, v_policy);
    perform _check_lease(p_lease);
    if coalesce(p_limit, 0) < 1 then
        raise exception 'claim needs a limit of at least 1, not %', p_limit
            using errcode = 'invalid_parameter_value';
    end if;

    v_lanes := _open_lanes(p_agents, p_kinds, p_capabilities, v_policy);
    select exists (select from run_limit),
           exists (
               select from unnest(v_lanes) as lane (id)
               cross join lateral (select from scheduled where lane_id = lane.id and run_at <= v_now limit 1) as due
           ),
           (select max(timeout) from run_timeout having count(*) = 1)
    into v_limited, v_due, v_default;
    if v_due then
        perform _promote(v_lanes, v_now);
    end if;
    if p_job_ids is not null then
        v_ids := _take_these(p_job_ids, v_lanes, least(p_limit, c_most), v_now);
    elsif v_limited then
        v_ids := _take_within_limits(v_lanes, least(p_limit, c_most), v_now);
    else
        v_ids := _take_next(v_lanes, least(p_limit, c_most), v_now);
    end if;
    if v_ids = '{}' then
        return;
    end if;

    return query
    with leased as (
        update job
        set state = case when p_start then 'running' else 'claimed' end,
            attempt = attempt + 1,
            started_at = case when p_start then coalesce(started_at, v_now) else started_at end,
            updated_at = v_now,
            event_seq = event_seq + case when p_start then 2 else 1 end
        where id = any (v_ids)
        returning job.*, nextval('moonmind_queue.lease_token_seq') as token,
        coalesce(timeout, case when v_default is not null then v_default else (
            select run_timeout.timeout from run_timeout where run_timeout.kind in (job.kind, '*')
            order by run_timeout.kind = '*' limit 1
        ) end) as allowed
    ),
    held as (
        insert into lease (job_id, token, attempt, lane_id, expires_at, deadline_at, worker, started)
        select id, token, attempt, lane_id, v_now + least(p_lease, allowed), v_now + allowed, p_worker, p_start
        from leased
    ),
    logged as (
        insert into event (job_id, seq, at, type, worker, data)
        select id, event_seq - case when p_start then 1 else 0 end, v_now, 'claimed', p_worker,
               jsonb_build_object('attempt', attempt, 'lease_until', v_now + least(p_lease, allowed))
        from leased
        union all
        select id, event_seq, v_now, 'started', p_worker, null
        from leased
        where p_start
    )
    select id, kind, agent, name::text, key::text, payload::jsonb, priority, attempt, max_attempts::integer, token,
           v_now + least(p_lease, allowed), least(p_lease, allowed)
    from leased
    order by rank, id;
end;
$$;

comment on function moonmind_queue.claim(text, text[], text[], text[], integer, interval, boolean, bigint[])
is 'Lease up to limit due jobs to a worker.';
-- <<<
-- >>> sql/classify_failure.sql
-- classify_failure(source, text) → the name of the rule that counts, its outcome, and what it brings; no row where none does.
--
-- For whoever writes rules: what a text would mean, without a job.
create or replace function moonmind_queue.classify_failure(p_source text, p_text text)
returns table (name text, outcome text, rest interval, most integer, pauses boolean, advice text)
language plpgsql
stable
security definer
set search_path = moonmind_queue, pg_temp
as $$
#variable_conflict use_column
declare
    v_rule constant failure_rule := _classify(p_source, p_text);
begin
    if v_rule.name is not null then
        return query
        select v_rule.name, v_rule.outcome, coalesce(_rest_in(p_text), v_rule.rest), v_rule.most, v_rule.pauses, v_rule.advice;
    end if;
end;
$$;

comment on function moonmind_queue.classify_failure(text, text) is 'What a failure would mean.';
-- <<<
-- >>> sql/complete.sql
-- complete(job, token, result) → void; the job has succeeded.
--
-- Contract
--   * As complete_many() for one job, but a lost lease is an error.
-- Locks     the job, its lease, its dependents in id order.
-- Errors    MQ001, MQ002, MQ004; 23514 a result that is not an object.
create or replace function moonmind_queue.complete(p_job_id bigint, p_token bigint, p_result jsonb default '{}')
returns void
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
begin
    perform from complete_many(array[p_job_id], array[p_token], array[p_result]);
    if not found then
        perform _lock_lease(p_job_id, p_token);  -- raises, and knows why
    end if;
end;
$$;

comment on function moonmind_queue.complete(bigint, bigint, jsonb) is 'End a leased job well.';
-- <<<
-- >>> sql/complete_many.sql
-- complete_many(jobs, tokens, results) → the jobs that this call ended, and their state.
--
-- Contract
--   * jobs[i] is held with tokens[i] and ends as succeeded with results[i] (null: {}).
--   * A job that is claimed has been started too: who runs short jobs need not say so before.
--   * A job that is missing from the answer is a lease that was lost; nothing of it changes.
--   * A cancel request that came first wins: the job is cancelled, its result kept.
--   * Dependents are released, and on_success is enqueued, in the same transaction.
-- Locks     the jobs and their dependents in one id order; then the leases, which go.
-- Notifies  moonmind_queue, for dependents.
-- Events    started where it is missing; completed or cancelled; ready for dependents; created for on_success.
-- Errors    22023 lists of different length; 23514 a result that is not an object; MQ004.
create or replace function moonmind_queue.complete_many(
    p_job_ids bigint[],
    p_tokens  bigint[],
    p_results jsonb[]
)
returns table (job_id bigint, state text)
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set enable_hashjoin = off
set max_parallel_workers_per_gather = 0
set enable_mergejoin = off
set enable_bitmapscan = off
as $$
#variable_conflict use_column
declare
    v_now       constant timestamptz := _now();
    v_needed    boolean;
    v_done      bigint[];
    v_states    text[];  -- of these
    v_succeeded bigint[];
begin
    if cardinality(p_job_ids) is distinct from cardinality(p_tokens)
        or cardinality(p_results) <> cardinality(p_job_ids)
    then
        raise exception 'complete_many needs a token and a result for every job, not % and % for %',
            cardinality(p_tokens), cardinality(p_results), cardinality(p_job_ids)
            using errcode = 'invalid_parameter_value';
    end if;
    v_needed := _lock_ends(p_job_ids);
    perform _check_policy(p_job_ids, p_tokens);

    with held as materialized (
        select given.job_id, lease.worker, lease.cancel_requested_at is not null as cancelled,
               lease.cancel_reason, lease.started, coalesce(given.result, '{}') as result
        from (
            select * from unnest(p_job_ids, p_tokens, p_results) as given (job_id, token, result)
            order by given.job_id
        ) as given
        cross join lateral (  -- with the job locked, nobody but renew() writes its lease
            select lease.*
            from lease
            where lease.job_id = given.job_id and lease.token = given.token
            offset 0  -- a fence: from what is given to its lease, whatever statistics say
        ) as lease
    ),
    released as (
        delete from lease where lease.job_id = any (array(select held.job_id from held))
    ),
    ended as (
        update job
        set state = case when cancelled then 'cancelled' else 'succeeded' end,
            result = held.result,
            error = case when cancelled then held.cancel_reason end,
            finished_at = v_now,
            updated_at = v_now,
            started_at = coalesce(started_at, v_now),
            event_seq = event_seq + case when held.started then 1 else 2 end
        from held
        where job.id = held.job_id
        returning job.id, job.state, job.event_seq, job.result, held.worker, held.cancelled, held.cancel_reason,
                  held.started
    ),
    logged as (
        insert into event (job_id, seq, at, type, level, message, worker, data)
        select id, event_seq - 1, v_now, 'started', 'info', '', worker, null
        from ended
        where not started
        union all
        select id, event_seq, v_now,
               case when cancelled then 'cancelled' else 'completed' end,
               case when cancelled then 'warn' else 'info' end,
               coalesce(cancel_reason, ''), worker, nullif(result, '{}')
        from ended
    )
    select array_agg(id order by id), array_agg(ended.state::text order by id), array_agg(id order by id) filter (where not cancelled)
    into v_done, v_states, v_succeeded
    from ended;

    if v_needed and v_succeeded is not null then
        perform _release_dependents(v_succeeded);
    end if;
    perform _follow_up(v_succeeded, 'success') where exists (select from follow_up where follow_up.job_id = any (v_succeeded));
    if v_succeeded is distinct from v_done then
        perform _fail_dependents(id) from unnest(v_done) as id where id <> all (coalesce(v_succeeded, '{}'));
    end if;
    perform _make_room();
    return query select * from unnest(v_done, v_states);
end;
$$;

comment on function moonmind_queue.complete_many(bigint[], bigint[], jsonb[]) is 'End many leased jobs well in one call.';
-- <<<
-- >>> sql/cool_down.sql
-- cool_down(job, token, lasting, reason) → until when; the account behind the holder's agent is used up.
--
-- Contract
--   * The job is handed back at its old place, the attempt does not count, and no job of its agent
--     is claimed for that long: all workers of the agent wait.
--   * A longer cooldown that stands already stays. A cancel request that came first wins.
-- Locks     the job, its lease; the agent's row in pause.
-- Events    released, or cancelled.
-- Errors    MQ001, MQ002, MQ004; 22023 not between 0 and 31 days, reason above 64 KiB.
create or replace function moonmind_queue.cool_down(
    p_job_id  bigint,
    p_token   bigint,
    p_lasting interval,
    p_reason  text default null
)
returns timestamptz
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_until constant timestamptz := _now() + p_lasting;
    v_lease lease;
    v_agent text;
    v_other timestamptz;
begin
    if p_lasting is null or p_lasting <= interval '0' or p_lasting > interval '31 days' then
        raise exception 'a cooldown must be longer than 0 and at most 31 days, not %', p_lasting
            using errcode = 'invalid_parameter_value';
    end if;
    v_lease := _lock_lease(p_job_id, p_token);
    perform release(p_job_id, p_token, p_reason);
    select agent into v_agent from job where id = p_job_id;
    select until into v_other from pause where agent = v_agent and cause = 'cooldown' for update;
    if v_other is null or v_other < v_until then
        perform _pause(v_agent, 'cooldown', coalesce(p_reason, ''), v_until, v_lease.worker);
        return v_until;
    end if;
    return v_other;
end;
$$;

comment on function moonmind_queue.cool_down(bigint, bigint, interval, text)
is 'Hand a job back and let its agent rest: its account is used up for now.';
-- <<<
-- >>> sql/count_usage.sql
-- count_usage(job, token, thread, model, input, cached_input, output, reasoning) → no row: go on; else how the attempt is to end, and why.
--
-- Contract
--   * By the lease holder only. The counters are those of a thread, a conversation with a model,
--     since its beginning: what an attempt told last is taken off, or what any did before it. So
--     the same again counts nothing, and a thread that is gone on with counts what is new. Counters
--     that fell, because an older state of the thread was gone on with, count nothing once.
--   * Cached input is part of the input, and reasoning part of the output. model null: nobody knows.
--   * outcome block: the job has used up its own budget. release: one that it shares with others
--     is used up, and the job can go on when that is renewed.
-- Locks     the job, its lease; where there are budgets, these.
-- Events    overspent, once in an attempt.
-- Errors    MQ001, MQ002, MQ004; 22023 no thread, no counters, or a thread or model above 200
--           characters; 23514 counters that are negative or absurd.
create or replace function moonmind_queue.count_usage(
    p_job_id       bigint,
    p_token        bigint,
    p_thread       text,
    p_model        text,
    p_input        bigint,
    p_cached_input bigint default 0,
    p_output       bigint default 0,
    p_reasoning    bigint default 0
)
returns table (outcome text, reason text)
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    v_day   constant date := (_now() at time zone 'UTC')::date;
    v_lease constant lease := _lock_lease(p_job_id, p_token);
    v_lane  lane;
    v_new   usage_thread;
    v_own   text;
begin
    if coalesce(p_thread, '') = '' or greatest(length(p_thread), length(p_model)) > 200
        or p_input + p_cached_input + p_output + p_reasoning is null
    then
        raise exception 'usage needs four counters and a thread, and names of at most 200 characters: %, %',
            left(p_thread, 100), left(p_model, 100)
            using errcode = 'invalid_parameter_value';
    end if;
    if exists (select from budget) then
        perform _lock_budgets();
    end if;
    select p_job_id, p_thread, p_token,
           greatest(p_input - coalesce(max(input_tokens), 0), 0),
           greatest(p_cached_input - coalesce(max(cached_input_tokens), 0), 0),
           greatest(p_output - coalesce(max(output_tokens), 0), 0),
           greatest(p_reasoning - coalesce(max(reasoning_tokens), 0), 0)
    into v_new
    from (
        select *, rank() over (order by token = p_token desc) as place
        from usage_thread
        where job_id = p_job_id and thread = p_thread
    ) as told
    where place = 1;

    insert into usage_thread as known
    values (p_job_id, p_thread, p_token, p_input, p_cached_input, p_output, p_reasoning)
    on conflict (job_id, thread, token) do update
    set input_tokens = greatest(known.input_tokens, excluded.input_tokens),
        cached_input_tokens = greatest(known.cached_input_tokens, excluded.cached_input_tokens),
        output_tokens = greatest(known.output_tokens, excluded.output_tokens),
        reasoning_tokens = greatest(known.reasoning_tokens, excluded.reasoning_tokens);
    select * into v_lane from lane where id = v_lease.lane_id;
    perform _add_usage(v_new, v_lease.attempt, v_lane, coalesce(p_model, ''), v_day);

    v_own := _overspent(p_job_id);
    outcome := case when v_own is not null then 'block' else 'release' end;
    reason := coalesce(v_own, case when exists (select from budget) then _spend(v_lane) end);
    if reason is not null then
        perform _tell_overspent(p_job_id, v_lease.worker, reason);
        return next;
    end if;
end;
$$;

comment on function moonmind_queue.count_usage(bigint, bigint, text, text, bigint, bigint, bigint, bigint)
is 'Say how many tokens of a model were used; learn whether that was too much.';
-- <<<
-- >>> sql/defer_schedule.sql
-- defer_schedule(name, revision, error) → void; the schedule rests five minutes and shows the error.
--
-- Contract
--   * For a worker that cannot compute or enqueue an occurrence. Another worker may be able to, so
--     nothing is dropped: what comes meanwhile is due, or missed, afterwards.
--   * A schedule that was changed since, or is in somebody's hands, is left alone.
-- Locks     the schedule, skip locked.
create or replace function moonmind_queue.defer_schedule(p_name text, p_revision integer, p_error text)
returns void
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
begin
    update schedule
    set error = left(p_error, 2000),
        retry_at = _now() + interval '5 min'
    where name = (select name from schedule where name = p_name and revision = p_revision for update skip locked);
end;
$$;

comment on function moonmind_queue.defer_schedule(text, integer, text) is 'Let a schedule rest that cannot be run.';
-- <<<
-- >>> sql/doze.sql
-- doze(worker, asleep) → void; the worker process waits for a notification from now on, or no longer does.
--
-- Contract
--   * Commit before you wait, and call next_due() after that: it says whether work came meanwhile.
--   * Only workers that doze are notified, only of agents that they serve, and once: who was
--     notified and finds nothing to do calls doze() again.
--   * Waits for nobody, and costs no flush: after a crash nobody sleeps.
-- Errors    22023 a process that is not registered; MQ004 a worker that the login's policy does not list.
create or replace function moonmind_queue.doze(p_worker_id bigint, p_asleep boolean default true)
returns void
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_agents text[];
begin
    perform _check_worker(worker, _policy()) from worker where id = p_worker_id;
    select coalesce(agents, '{*}') into v_agents from worker where id = p_worker_id;
    if not found and p_asleep then
        raise exception 'worker process % is not registered', p_worker_id using errcode = 'invalid_parameter_value';
    end if;
    -- What a producer is waking at this moment is gone when it commits, or a wake-up too many.
    delete from sleeper
    where ctid = any (array(
        select ctid from sleeper where agent = any (v_agents) and worker_id = p_worker_id for update skip locked
    ));
    if p_asleep then
        insert into sleeper (agent, worker_id) select unnest(v_agents), p_worker_id;
    end if;
end;
$$;

comment on function moonmind_queue.doze(bigint, boolean) is 'Say that a worker waits for a notification.';
-- <<<
-- >>> sql/drop_budget.sql
-- drop_budget(scope, name, period) → whether there was one; of that period, or of all (null).
--
-- Locks     the budgets, which are reckoned anew.
-- Notifies  moonmind_queue
create or replace function moonmind_queue.drop_budget(p_scope text, p_name text default '*', p_period text default null)
returns boolean
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_any boolean;
begin
    perform _lock_budgets();
    delete from budget
    where scope = p_scope
      and period = coalesce(p_period, period)
      and name = case when p_scope = 'repository' and p_name <> '*'
          then _repository(jsonb_build_object('repository', p_name)) else p_name end;
    v_any := found;
    if v_any then
        perform _reckon_budgets();
    end if;
    return v_any;
end;
$$;

comment on function moonmind_queue.drop_budget(text, text, text) is 'Take budgets away.';
-- <<<
-- >>> sql/drop_failure_rule.sql
-- drop_failure_rule(name) → whether there was such a rule; what it named is retried from now on, unless another rule says more.
create or replace function moonmind_queue.drop_failure_rule(p_name text)
returns boolean
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
begin
    delete from failure_rule where name = p_name;
    return found;
end;
$$;

comment on function moonmind_queue.drop_failure_rule(text) is 'Take a rule of failures away.';
-- <<<
-- >>> sql/drop_policy.sql
-- drop_policy(role) → whether there was one; the role may do all that the roles it is in may.
create or replace function moonmind_queue.drop_policy(p_role text)
returns boolean
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
begin
    delete from policy where role = p_role;
    return found;
end;
$$;

comment on function moonmind_queue.drop_policy(text) is 'Take a role''s policy away.';
-- <<<
-- >>> sql/drop_price.sql
-- drop_price(model, since) → whether there was a price; that of that day, or all of the model (null).
--
-- Locks     the budgets, which are reckoned anew.
-- Notifies  moonmind_queue
create or replace function moonmind_queue.drop_price(p_model text, p_since date default null)
returns boolean
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_any boolean;
begin
    perform _lock_budgets();
    delete from token_price where model = p_model and since = coalesce(p_since, since);
    v_any := found;
    if v_any then
        perform _reckon_budgets();
    end if;
    return v_any;
end;
$$;

comment on function moonmind_queue.drop_price(text, date) is 'Take prices away.';
-- <<<
-- >>> sql/due_schedules.sql
-- due_schedules(limit) → name, revision, cron, timezone, next_at and the time now, longest due first.
--
-- Contract
--   * Those that are not paused and whose next occurrence has come, or is still to be computed.
--   * The caller computes the occurrences up to now, by this clock and never by its own, and calls
--     run_schedule() with them.
--   * Reads only: any number of workers may look.
create or replace function moonmind_queue.due_schedules(p_limit integer default 100)
returns table (name text, revision integer, cron text, timezone text, next_at timestamptz, now timestamptz)
language sql
security definer
set search_path = moonmind_queue, pg_temp
as $$
    select s.name, s.revision, s.cron, s.timezone, s.next_at, clock.now
    from _now() as clock (now)
    join schedule s on s.due_at <= clock.now
    order by s.due_at, s.name
    limit p_limit;
$$;

comment on function moonmind_queue.due_schedules(integer) is 'Schedules whose time has come.';
-- <<<
-- >>> sql/end_step.sql
-- end_step(job, token, step, content, data) → void; the effect has happened.
--
-- Contract
--   * By the lease holder only. data is added to that of the beginning.
-- Locks     the job, its lease.
-- Events    published, with step, content and data; once.
-- Errors    MQ001, MQ002; 22023 a step that was not begun, or data above 64 KiB.
create or replace function moonmind_queue.end_step(
    p_job_id  bigint,
    p_token   bigint,
    p_step    text,
    p_content text  default '',
    p_data    jsonb default '{}'
)
returns void
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_lease constant lease := _lock_lease(p_job_id, p_token);
    v_step  publication;
begin
    perform _check_text('data', p_data::text);
    select * into v_step from publication where job_id = p_job_id and step = p_step and content = coalesce(p_content, '');
    if not found then
        raise exception 'step % of job % was not begun', left(p_step, 100), p_job_id using errcode = 'invalid_parameter_value';
    end if;
    update publication
    set done_at = coalesce(done_at, _now()), data = data || coalesce(p_data, '{}')
    where job_id = p_job_id and step = p_step and content = v_step.content;
    if v_step.done_at is null then
        perform _log(p_job_id, 'published', p_step, p_worker => v_lease.worker,
                     p_data => jsonb_build_object('content', v_step.content) || coalesce(p_data, '{}'));
    end if;
end;
$$;

comment on function moonmind_queue.end_step(bigint, bigint, text, text, jsonb) is 'Say that something has happened outside of the database.';
-- <<<
-- >>> sql/enqueue.sql
-- enqueue(kind, payload, agent, name, key, priority, run_at, after, max_attempts, capabilities,
--         timeout, expires_at, on_dependency_failure, concurrency_key, on_success, on_failure, made_by)
--         → job id.
--
-- Contract
--   * Part of the caller's transaction: the job exists exactly when that commits. The same key
--     again returns the job that has it and changes nothing.
--   * With after, the job waits until every one of those jobs has succeeded. When one ends
--     otherwise: wait for a person (the default), cancel this job too, or run it all the same.
--   * Higher priority runs first, then older run_at, then lower id; an hour of waiting outweighs
--     one level of priority.
--   * timeout bounds each attempt; null: run_timeout has one for the kind. At expires_at the job
--     is cancelled if no attempt is under way. run_limit may count by concurrency_key.
--   * on_success and on_failure list jobs, made_by is whose work brings this one: see enqueue_many().
-- Locks     the jobs named in after, shared, in id order: none of them can end unseen meanwhile;
--           then the login's row in allowance.
-- Notifies  moonmind_queue
-- Events    created, then cancelled where it applies.
-- Errors    22023 unknown dependency or a bad follow-up; 23502, 23514 a value that the table refuses; MQ004.
create or replace function moonmind_queue.enqueue(
    p_kind         text,
    p_payload      jsonb       default '{}',
    p_agent        text        default 'codex',
    p_name         text        default null,
    p_key          text        default null,
    p_priority     integer     default 0,
    p_run_at       timestamptz default null,
    p_after        bigint[]    default '{}',
    p_max_attempts integer     default 3,
    p_capabilities text[]      default '{}',
    p_timeout      interval    default null,
    p_expires_at   timestamptz default null,
    p_on_dependency_failure text default 'wait',
    p_concurrency_key       text default null,
    p_on_success jsonb  default null,
    p_on_failure jsonb  default null,
    p_made_by    bigint default null
)
returns bigint
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_now    constant timestamptz := _now();
    v_policy constant text := coalesce(p_on_dependency_failure, 'wait');
    v_unmet  integer := 0;
    v_lane   integer;
    v_rank   bigint;
    v_id     bigint;
    v_limited boolean;  -- by an allowance
begin
    if p_key is not null then
        select id into v_id from job where key = p_key;
        if found then
            return v_id;
        end if;
    end if;
    if coalesce(p_on_success, p_on_failure) is not null or p_made_by is not null then
        return (select _add_jobs(jsonb_build_array(jsonb_build_object(
            'kind', p_kind, 'payload', p_payload, 'agent', p_agent, 'name', p_name, 'key', p_key,
            'priority', p_priority, 'run_at', p_run_at, 'after', p_after, 'max_attempts', p_max_attempts,
            'capabilities', p_capabilities, 'timeout', p_timeout, 'expires_at', p_expires_at,
            'on_dependency_failure', p_on_dependency_failure, 'concurrency_key', p_concurrency_key, 'on_success', p_on_success,
            'on_failure', p_on_failure, 'made_by', p_made_by))));
    end if;
    if cardinality(p_after) > 0 then
        perform _lock_needs(p_after);
        select count(*) into v_unmet
        from job
        where id = any (p_after) and not _is_met(state, v_policy);
    end if;
    -- Most lanes exist, and a call takes as long as a statement: what _lane() finds, found here.
    select id into v_lane
    from lane
    where agent = p_agent
      and kind = p_kind
      and capabilities = p_capabilities
      and repository = case when p_payload ? 'repository' then _repository(p_payload) else '' end
      and concurrency_key = coalesce(p_concurrency_key, '')
    order by id
    limit 1;

    insert into job (
        key, name, agent, kind, state, priority, run_at, max_attempts, payload, created_at, updated_at,
        lane_id, unmet, event_seq, timeout, expires_at, on_dependency_failure, rank
    )
    values (
        p_key, p_name, p_agent, p_kind, case when v_unmet > 0 then 'waiting' else 'queued' end,
        coalesce(p_priority, 0), coalesce(p_run_at, v_now), coalesce(p_max_attempts, 3),
        coalesce(p_payload, '{}'), v_now, v_now,
        coalesce(v_lane, _lane(p_agent, p_kind, p_capabilities, p_payload, p_concurrency_key)),
        v_unmet, 1, p_timeout, p_expires_at, v_policy,
        case when isfinite(p_run_at) is not false  -- the domain of run_at refuses the rest by name
            then _rank(coalesce(p_priority, 0), coalesce(p_run_at, v_now)) else 0 end
    )
    on conflict (key) where key is not null do nothing
    returning id, lane_id, rank, exists (select from allowance where role = session_user)
    into v_id, v_lane, v_rank, v_limited;
    if v_id is null then  -- another transaction was quicker with this key, and has committed
        return (select id from job where key = p_key);
    end if;

    insert into event (job_id, seq, at, type, worker)
    values (v_id, 1, v_now, 'created', session_user);
    if cardinality(p_after) > 0 then
        insert into dependency (job_id, needs_job_id)
        select distinct v_id, needs from unnest(p_after) as needs;
    end if;
    if p_expires_at is not null then
        insert into expiry (expires_at, job_id) values (p_expires_at, v_id);
    end if;
    if v_unmet = 0 and p_run_at is null then  -- the most frequent case of _offer()
        insert into ready (lane_id, rank, job_id) values (v_lane, v_rank, v_id);
        perform _ring(array[p_agent]);
    elsif v_unmet = 0 then
        perform _offer(array[v_id]);
    elsif v_policy = 'cancel' then
        perform _cancel_doomed(array[v_id]);
    end if;
    if v_limited then perform _charge(array[v_id]); end if;
    return v_id;
end;
$$;

comment on function moonmind_queue.enqueue(text, jsonb, text, text, text, integer, timestamptz, bigint[], integer, text[], interval, timestamptz, text, text, jsonb, jsonb, bigint)
is 'Add a job, optionally after others; part of the caller''s transaction.';
-- <<<
-- >>> sql/enqueue_many.sql
-- enqueue_many(jobs) → their ids, in input order.
--
-- Contract
--   * jobs is an array of objects with the parameters of enqueue() as names, without p_.
--   * after may hold ids, and keys of this call or of jobs that exist; the order does not matter.
--   * on_success and on_failure may hold jobs that are added when the job has succeeded, or failed
--     for good: once for each event. They are tried out now; five levels, a hundred jobs.
--   * All or nothing. A key that exists, or stands earlier in the call, is that job, unchanged.
-- Locks     keys in their order, then jobs named in after that existed before, shared, in id order;
--           then the login's row in allowance.
-- Notifies  moonmind_queue, once per agent.
-- Events    created, then cancelled where it applies.
-- Errors    22023 not an array of objects, unknown name, unknown dependency, circle (with its path);
--           23514 a value that the table refuses; MQ004 the login's allowance does not admit it.
create or replace function moonmind_queue.enqueue_many(p_jobs jsonb)
returns setof bigint
language sql
security definer
set search_path = moonmind_queue, pg_temp
as $$
    select _add_jobs(p_jobs);
$$;

comment on function moonmind_queue.enqueue_many(jsonb)
is 'Add many jobs in one call, dependencies among them included.';
-- <<<
-- >>> sql/event_cursor.sql
-- event_cursor(since, last) → a cursor for read_events(): from the first event of that time on; or
-- (null) with what comes now, after the last ones.
--
-- Contract
--   * '-infinity' starts with the oldest event that is kept. Another time reads the months since
--     then once; last does not.
--   * What has a lower number than the first event and is not committed yet is not read.
create or replace function moonmind_queue.event_cursor(p_since timestamptz default null, p_last integer default 0)
returns text
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_high  constant bigint := coalesce(pg_sequence_last_value('moonmind_queue.event_pos_seq'), 0);
    v_first bigint;
begin
    if p_since = '-infinity' then
        v_first := 1;
    elsif p_since is not null then
        with recent as materialized (select pos from event where at >= p_since)
        select min(pos) into v_first from recent;
    else
        with latest as materialized (select pos from event order by pos desc limit p_last)
        select min(pos) into v_first from latest;
    end if;
    return format('{[%s,)}', coalesce(v_first, v_high + 1));
end;
$$;

comment on function moonmind_queue.event_cursor(timestamptz, integer) is 'Where to begin to read the events of all jobs.';
-- <<<
-- >>> sql/fail.sql
-- fail(job, token, error, outcome, retry_in, source) → the job's new state.
--
-- Contract
--   * outcome retry: queued again after retry_in, or the back-off of its kind; dead_letter when
--     its attempts are used up. block: blocked until a person acts. fail: failed for good.
--   * With a source, such as codex, the rules for failures are asked first what the error means:
--     what they say of outcome and rest goes before outcome and retry_in. They may also let the
--     agent rest (the attempt does not count then), or pause it until a person resumes it.
--   * A cancel request that came first wins: cancelled.
-- Locks     the job, its lease; dependents of a job that ends, in id order; the agent's row in pause.
-- Notifies  moonmind_queue
-- Events    failed, then dead_lettered where it applies; or blocked; or cancelled.
-- Errors    MQ001, MQ002, MQ004; 22023 unknown outcome, retry_in not between 0 and a year, error above 64 KiB.
create or replace function moonmind_queue.fail(
    p_job_id   bigint,
    p_token    bigint,
    p_error    text,
    p_outcome  text     default 'retry',
    p_retry_in interval default null,
    p_source   text     default null
)
returns text
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_lease constant lease := _lock_lease(p_job_id, p_token);
    v_rule  constant failure_rule := case when p_source is not null then _classify(p_source, p_error) end;
    v_error constant text := p_error || case when v_rule.advice <> '' then ' (' || v_rule.advice || ')' else '' end;
    v_class constant jsonb := case when v_rule.name is null then '{}' else jsonb_build_object('class', v_rule.name) end;
    v_outcome text := coalesce(v_rule.outcome, p_outcome, '');
    v_rest    interval := coalesce(case when v_rule.name is not null then _rest_in(p_error) end, v_rule.rest, p_retry_in);
    v_job     job;
begin
    if v_outcome not in ('retry', 'block', 'fail', 'cool_down') or v_rule.name is null and v_outcome = 'cool_down'
        or p_retry_in not between interval '0' and interval '1 year'
    then
        raise exception 'fail needs an outcome of retry, block or fail and a rest between 0 and a year, not % and %', left(p_outcome, 100), p_retry_in
            using errcode = 'invalid_parameter_value';
    end if;
    perform _check_text('error', p_error);
    if v_lease.cancel_requested_at is not null then
        return _end(p_job_id, 'cancelled', v_lease.cancel_reason, 'cancelled', 'warn', v_lease.worker,
                    jsonb_build_object('error', p_error));
    end if;
    if v_rule.pauses then
        select * into v_job from job where id = p_job_id;
        perform _pause(v_job.agent, 'cooldown', v_error, null, v_lease.worker);
    end if;
    if v_outcome = 'retry' and _failures_like(p_job_id, v_rule.name) + 1 >= v_rule.most then
        v_outcome := 'fail';
    end if;
    case v_outcome
        when 'cool_down' then
            perform cool_down(p_job_id, p_token, v_rest, v_error);
            select state into v_outcome from job where id = p_job_id;
            return v_outcome;
        when 'block' then
            return _end(p_job_id, 'blocked', v_error, 'blocked', 'warn', v_lease.worker, nullif(v_class, '{}'));
        when 'fail' then
            return _end(p_job_id, 'failed', v_error, 'failed', 'error', v_lease.worker,
                        jsonb_build_object('attempt', v_lease.attempt) || v_class);
        else null;
    end case;

    update job set error = v_error where id = p_job_id returning * into v_job;
    if v_job.attempt >= v_job.max_attempts then
        perform _log(p_job_id, 'failed', v_error, 'error', v_lease.worker,
                     jsonb_build_object('attempt', v_lease.attempt) || v_class);
        return _end(p_job_id, 'dead_letter', v_error, 'dead_lettered', 'error', v_lease.worker,
                    jsonb_build_object('attempts', v_job.attempt));
    end if;
    v_rest := coalesce(v_rest, _backoff(v_job.kind, v_job.attempt));
    perform _log(p_job_id, 'failed', v_error, 'warn', v_lease.worker,
                 jsonb_build_object('attempt', v_lease.attempt, 'retry_at', _now() + v_rest) || v_class);
    return _queue(p_job_id, _now() + v_rest);
end;
$$;

comment on function moonmind_queue.fail(bigint, bigint, text, text, interval, text) is 'End an attempt badly; retry, block or fail the job.';
-- <<<
-- >>> sql/hear.sql
-- hear(job, token, all) → the messages for the agent of a job, oldest first, each once; with all those heard before, too.
--
-- Contract
--   * By the lease holder only. all is for who tells an agent that knows nothing of earlier attempts.
-- Locks     the job, its lease.
-- Errors    MQ001, MQ002, MQ004.
create or replace function moonmind_queue.hear(p_job_id bigint, p_token bigint, p_all boolean default false)
returns table (id bigint, content text)
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
#variable_conflict use_column
begin
    perform _lock_lease(p_job_id, p_token);
    return query
    with said as (
        select message.id, message.content
        from message
        where job_id = p_job_id and (heard_at is null or coalesce(p_all, false))
    ),
    heard as (
        update message set heard_at = _now() where job_id = p_job_id and heard_at is null
    )
    select said.id, said.content from said order by said.id;
end;
$$;

comment on function moonmind_queue.hear(bigint, bigint, boolean) is 'Take what was said to the agent of a job that one holds.';
-- <<<
-- >>> sql/held_by.sql
-- held_by(worker) → the jobs that a worker holds, with the tokens of its leases.
--
-- For a worker that has forgotten its tokens, as an agent's tool does between two sessions. A worker
-- that knows its tokens never asks: what it did not claim itself it must not go on with.
--
-- Errors    22023 a worker without a usable name; MQ004 one that the login's policy does not list.
create or replace function moonmind_queue.held_by(p_worker text)
returns table (job_id bigint, token bigint, attempt integer, expires_at timestamptz, started boolean)
language plpgsql
stable
security definer
set search_path = moonmind_queue, pg_temp
as $$
#variable_conflict use_column
begin
    perform _check_worker(p_worker, _policy());
    return query
    select job_id, token, attempt, expires_at, started
    from lease
    where worker = p_worker
    order by job_id;
end;
$$;

comment on function moonmind_queue.held_by(text) is 'The leases of a worker.';
-- <<<
-- >>> sql/maintain.sql
-- maintain(limit) → what was tidied up and how many of each; no row where there was nothing to do.
--
-- Contract
--   * jobs: at most limit final jobs that ended longer ago than retention says, as prune() does;
--     call again while that many went. A live job stays with its whole history, however old.
--   * workers: processes that stopped or were last seen a week ago. sleepers: of processes that
--     stopped or were not seen for an hour. pauses: that were over a day ago.
--   * partitions dropped, partitions made: months of the history and the logs. Nothing waits behind this for
--     longer than 50 ms; where a reader is in the way, the next call will do it.
--   * One at a time: while another session is at it, this returns nothing at once. Workers call it
--     hourly, anybody may. Commit at once: what was dropped or made stays locked until then.
-- Locks     jobs, skip locked; then the partitioned tables, exclusively, for 50 ms at most.
-- Errors    22023 a limit below 1.
create or replace function moonmind_queue.maintain(p_limit integer default 1000)
returns table (what text, count bigint)
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_tables constant text[] := '{event,log_chunk}';  -- those that are partitioned by their column at
    v_now    constant timestamptz := _now();
    v_keep   constant interval := (select keep from retention where what = 'job');
    v_jobs   bigint := 0;
begin
    if coalesce(p_limit, 0) < 1 then
        raise exception 'maintain needs a limit of at least 1, not %', p_limit
            using errcode = 'invalid_parameter_value';
    end if;
    if not pg_try_advisory_xact_lock(hashtextextended('moonmind_queue.maintain', 0)) then
        return;
    end if;
    -- prune() looks at every job; the first one tells when that is not needed, or else the index on created_at.
    if (select created_at from job order by id limit 1) < v_now - v_keep and exists (
        select from job
        where created_at < v_now - v_keep and finished_at < v_now - v_keep
          and not exists (select from dependency where needs_job_id = job.id)
          and not exists (select from dag_task where job_id = job.id and not gone)
    ) then
        v_jobs := prune(v_keep, p_limit);
    end if;

    return query
    with gone_worker as (
        delete from worker where coalesce(stopped_at, seen_at) < v_now - interval '7 days' returning id
    ),
    gone_sleeper as (
        delete from sleeper
        where ctid = any (array(
            select ctid from sleeper
            where not exists (
                select from worker
                where id = worker_id and stopped_at is null and seen_at >= v_now - interval '1 hour'
            )
            for update skip locked
        ))
        returning worker_id
    ),
    gone_pause as (
        delete from pause where until < v_now - interval '1 day' returning agent
    )
    select done.*
    from (
        values ('jobs', v_jobs),
               ('workers', (select count(*) from gone_worker)),
               ('sleepers', (select count(*) from gone_sleeper)),
               ('pauses', (select count(*) from gone_pause))
    ) as done (what, number)
    where number > 0;

    -- Last: what these lock stays locked until the transaction ends.
    return query
    with dropped as materialized (select sum(_drop_months(name)) as number from unnest(v_tables) as name),
         made as materialized (select sum(_make_months(name)) as number from unnest(v_tables) as name)
    select done.*
    from (
        select 'partitions dropped', number from dropped
        union all
        select 'partitions made', number from made
    ) as done (what, number)
    where number > 0;
end;
$$;

comment on function moonmind_queue.maintain(integer) is 'Delete what is too old, make and drop partitions; workers do this hourly.';
-- <<<
-- >>> sql/next_due.sql
-- next_due(agents, kinds, capabilities, horizon) → how long such a worker may sleep, and the horizon to ask with next.
--
-- Contract
--   * due is 0 when there is something to claim, to take back, to resume or to schedule now; else how long until
--     time alone brings that; null when there is nothing that time could bring.
--   * Changes no row: an idle worker asks this at each poll, and claims when it is told to or notified.
--   * While another session keeps dead rows from being cleaned up, due may be when this session is
--     to look at all of them again, within 30 s.
--   * Whoever has just called doze() asks with horizon 0. A horizon in the answer says that
--     transactions were under way that may not have seen the sleeper: ask again soon, with it,
--     until it is null. From then on every job is either seen here or notified.
--   * The horizon is a transaction id taken for this: it is above all that were given out, which
--     the end of a snapshot is not.
create or replace function moonmind_queue.next_due(
    p_agents       text[] default null,
    p_kinds        text[] default null,
    p_capabilities text[] default '{}',
    p_horizon      bigint default null
)
returns table (due interval, horizon bigint)
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set enable_hashjoin = off
set max_parallel_workers_per_gather = 0
set enable_mergejoin = off
as $$
declare
    v_now   constant timestamptz := _now();
    v_floor constant record := _floor(v_now);
    v_above constant jsonb  := case when v_floor.dear then v_floor.above end;
    v_again constant timestamptz := _leases_again(v_now);
    v_lanes integer[];
    v_lease timestamptz := v_again;
    v_due   timestamptz;
begin
    -- First of all: what commits between this and a look further down is seen by that look.
    horizon := case when p_horizon = 0 then pg_current_xact_id()::text::bigint else p_horizon end;
    if pg_snapshot_xmin(pg_current_snapshot())::text::bigint >= horizon then
        horizon := null;
    end if;
    v_lanes := _open_lanes(p_agents, p_kinds, p_capabilities, _policy());
    if exists (select from run_limit) then
        v_lanes := _with_room(v_lanes);
    end if;
    if exists (
        select from unnest(v_lanes) as lane (id)
        cross join lateral (
            select from ready
            where lane_id = lane.id and rank >= coalesce((v_above ->> lane.id::text)::bigint, -9223372036854775808)
            limit 1
        ) as head
    ) then
        due := interval '0';
        return next;
        return;
    end if;
    if v_again is null then
        select min(lease.expires_at) into v_lease
        from lease
        where not (exists (select from pause) and (
            select _is_paused(lane.agent, 'operator') from lane where lane.id = lease.lane_id
        ));
        if v_lease <= v_now is not true then
            perform _rest_from_leases(v_now);
        end if;
    end if;
    select least(
        (
            select min(first.run_at)
            from unnest(v_lanes) as lane (id)
            cross join lateral (
                select run_at from scheduled where lane_id = lane.id order by run_at limit 1
            ) as first
        ),
        v_lease,
        (
            select expiry.expires_at
            from expiry
            cross join lateral (  -- a fence: from each time to its job, whatever statistics say
                select from job where id = expiry.job_id and not _is_paused(agent, 'operator') offset 0
            ) as live
            order by expiry.expires_at limit 1
        ),
        (
            select min(until) from pause
            where until > v_now and (p_agents is null or agent = '*' or agent = any (p_agents))
        ),
        (select min(until) from spent_budget where until > v_now),
        case when v_floor.dear then v_floor.until end,  -- when a claim looks at everything again
        (select min(due_at) from schedule)
    ) into v_due;
    due := case when v_due is not null then greatest(v_due - v_now, interval '0') end;
    return next;
end;
$$;

comment on function moonmind_queue.next_due(text[], text[], text[], bigint) is 'The sleep of an idle worker.';
-- <<<
-- >>> sql/open_artifact.sql
-- open_artifact(job, token, name, content_type, size_bytes, sha256) → the artifact's id, or null.
--
-- Begins an artifact whose bytes follow by append_artifact(). Nobody sees it before its last byte.
--
-- Contract
--   * By the lease holder only; a name is unique within an attempt.
--   * Names under inputs/, in whatever case, are kept for what producers attach.
--   * Null: this very artifact is there already, nothing more is to be sent.
--   * What an interrupted upload of the same name left behind is thrown away.
-- Locks     the job, its lease.
-- Events    artifact, when there are no bytes to wait for.
-- Errors    MQ001, MQ002; MQ004 a job, a content type or a size that the login's policy does not admit; 22023 something is null, a content type above 200 characters, or a name
--           under inputs/; 23505 the name is taken by other bytes; 23514 unsafe name, bad digest.
create or replace function moonmind_queue.open_artifact(
    p_job_id       bigint,
    p_token        bigint,
    p_name         text,
    p_content_type text,
    p_size_bytes   bigint,
    p_sha256       text
)
returns bigint
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_lease constant lease := _lock_lease(p_job_id, p_token);
    v_old   artifact;
    v_id    bigint;
begin
    if p_name ~* '^inputs/' then
        raise exception 'artifact "%" of job %: names under inputs/ are kept for what producers attach; give it another',
            left(p_name, 100), p_job_id
            using errcode = 'invalid_parameter_value';
    end if;
    if p_name is null or p_content_type is null or p_size_bytes is null or p_sha256 is null
        or length(p_content_type) > 200
    then
        raise exception 'an artifact needs a name, a content type of at most 200 characters, a size and a sha256, not %, %, % and %',
            coalesce(left(p_name, 100), 'null'), coalesce(left(p_content_type, 100), 'null'),
            coalesce(p_size_bytes::text, 'null'), coalesce(left(p_sha256, 64), 'null')
            using errcode = 'invalid_parameter_value';
    end if;
    perform _check_artifact(p_name, p_content_type, p_size_bytes);
    select * into v_old from artifact where job_id = p_job_id and token = p_token and name = p_name;
    if v_old.sealed_at is not null then
        if (v_old.size_bytes, v_old.sha256) = (p_size_bytes, p_sha256) then
            return null;
        end if;
        raise exception 'artifact "%" of job %, attempt % exists already with other bytes', p_name, p_job_id, v_old.attempt
            using errcode = 'unique_violation';
    end if;
    delete from artifact_chunk where artifact_id = v_old.id;
    delete from artifact where id = v_old.id;

    insert into artifact (job_id, attempt, token, name, content_type, size_bytes, sha256, created_at)
    values (p_job_id, v_lease.attempt, p_token, p_name, p_content_type, p_size_bytes, p_sha256, _now())
    returning id into v_id;
    if p_size_bytes = 0 then
        perform _seal_artifact(v_id, v_lease.worker);
    end if;
    return v_id;
end;
$$;

comment on function moonmind_queue.open_artifact(bigint, bigint, text, text, bigint, text) is 'Begin an artifact of a job that one holds.';
-- <<<
-- >>> sql/pause.sql
-- pause(agent, reason, until) → void; no job of this agent (null: of any) is claimed until resumed, or until then.
--
-- Contract
--   * Jobs that are running go on. Lost leases and expired jobs stay as they are meanwhile.
--   * Again: the new reason and end replace the old.
-- Locks     its row in pause.
-- Errors    22023 until not in the future, an agent that cannot be, reason above 64 KiB.
create or replace function moonmind_queue.pause(
    p_agent  text        default null,
    p_reason text        default null,
    p_until  timestamptz default null
)
returns void
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
begin
    if p_until <= _now() then
        raise exception 'a pause until % would be over already', p_until
            using errcode = 'invalid_parameter_value';
    end if;
    if p_agent = '' or length(p_agent) > 200 then
        raise exception 'an agent has a name of at most 200 characters, not %', left(p_agent, 100)
            using errcode = 'invalid_parameter_value';
    end if;
    perform _check_text('reason', p_reason);
    perform _pause(coalesce(p_agent, '*'), 'operator', coalesce(p_reason, ''), p_until, session_user);
end;
$$;

comment on function moonmind_queue.pause(text, text, timestamptz) is 'Let no more jobs of an agent be claimed.';
-- <<<
-- >>> sql/pause_schedule.sql
-- pause_schedule(name, paused) → void; with false it goes on.
--
-- Contract
--   * Nothing is enqueued while it is paused, except by hand. What was missed meanwhile is then
--     treated as its catch_up says. Going on also ends the rest after an error.
-- Locks     the schedule.
-- Notifies  moonmind_queue when it goes on.
-- Errors    MQ005
create or replace function moonmind_queue.pause_schedule(p_name text, p_paused boolean default true)
returns void
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_schedule constant schedule := _lock_schedule(p_name);
begin
    update schedule
    set paused = coalesce(p_paused, true),
        retry_at = null,
        updated_at = _now()
    where name = p_name;
    if not p_paused then
        perform _ring(array[coalesce(v_schedule.job ->> 'agent', 'codex')]);
    end if;
end;
$$;

comment on function moonmind_queue.pause_schedule(text, boolean) is 'Stop a schedule for a while, or let it go on.';
-- <<<
-- >>> sql/peek.sql
-- peek(agents, kinds, capabilities, limit, job_ids) → the ids of jobs that a claim would take now, most urgent first.
--
-- Contract
--   * What is asked for, and who asks, decide as in claim(); with job_ids only of these.
--   * Each could be claimed by itself: of several that share a limit a claim takes as many as it
--     leaves room for.
--   * Reads only: no job is locked, and another may take it before you do.
-- Errors    22023 limit below 1; MQ004 agents or kinds that the login's policy does not admit.
create or replace function moonmind_queue.peek(
    p_agents       text[]   default null,
    p_kinds        text[]   default null,
    p_capabilities text[]   default '{}',
    p_limit        integer  default 1,
    p_job_ids      bigint[] default null
)
returns setof bigint
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set enable_hashjoin = off
set max_parallel_workers_per_gather = 0
set enable_mergejoin = off
set enable_bitmapscan = off
as $$
declare
    v_now   constant timestamptz := _now();
    v_lanes integer[];
begin
    if coalesce(p_limit, 0) < 1 then
        raise exception 'peek needs a limit of at least 1, not %', p_limit
            using errcode = 'invalid_parameter_value';
    end if;
    v_lanes := _open_lanes(p_agents, p_kinds, p_capabilities, _policy());
    if exists (select from run_limit) then
        v_lanes := _with_room(v_lanes);
    end if;

    if p_job_ids is not null then
        return query
        select id
        from job
        where id = any (p_job_ids)
          and state = 'queued'
          and lane_id = any (v_lanes)
          and run_at <= v_now
          and (expires_at is null or expires_at > v_now)
        order by rank, id
        limit p_limit;
        return;
    end if;

    return query
    select head.job_id
    from unnest(v_lanes) as lane (id)
    cross join lateral (
        (
            select r.rank, r.job_id
            from ready r
            cross join lateral (  -- a fence: from each head to its job, whatever statistics say
                select from job where id = r.job_id and (expires_at is null or expires_at > v_now) offset 0
            ) as live
            where r.lane_id = lane.id
            order by r.rank, r.job_id
            limit p_limit
        )
        union all
        (  -- what a claim would move to ready first
            select s.rank, s.job_id
            from scheduled s
            cross join lateral (
                select from job where id = s.job_id and (expires_at is null or expires_at > v_now) offset 0
            ) as live
            where s.lane_id = lane.id and s.run_at <= v_now
            order by s.run_at
            limit 1000
        )
    ) as head
    order by head.rank, head.job_id
    limit p_limit;
end;
$$;

comment on function moonmind_queue.peek(text[], text[], text[], integer, bigint[])
is 'What a claim would take now, without taking it.';
-- <<<
-- >>> sql/prune.sql
-- prune(older_than, limit) → how many jobs were deleted, with their history, logs and artifacts.
--
-- Contract
--   * Only final jobs that ended longer ago, and only once no other job needs them: of a chain
--     the last job goes first. A task that its DAG has stays, or seeding would run it again.
--   * At most limit a call, so that no transaction grows long; call again until it returns 0.
-- Locks     the jobs, skip locked.
-- Errors    22023 a negative age or a limit below 1.
create or replace function moonmind_queue.prune(p_older_than interval, p_limit integer default 1000)
returns integer
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_before constant timestamptz := _now() - p_older_than;
    v_total  integer := 0;
    v_ids    bigint[];
begin
    if p_older_than is null or p_older_than < interval '0' or coalesce(p_limit, 0) < 1 then
        raise exception 'prune needs an age of at least 0 and a limit of at least 1, not % and %', p_older_than, p_limit
            using errcode = 'invalid_parameter_value';
    end if;
    while v_total < p_limit loop
        v_ids := array(
            select id
            from job
            where finished_at < v_before
              and not exists (select from dependency where needs_job_id = job.id)
              and not exists (select from dag_task where job_id = job.id and not gone)
            order by id
            limit p_limit - v_total
            for update skip locked
        );
        -- Locked, none can be needed by a new job any more; one may have come while we looked.
        v_ids := array(
            select id
            from unnest(v_ids) as id
            where not exists (select from dependency where needs_job_id = id)
        );
        exit when v_ids = '{}';
        delete from artifact_chunk where artifact_id in (select id from artifact where job_id = any (v_ids));
        delete from artifact where job_id = any (v_ids);
        delete from log_chunk where job_id = any (v_ids);
        delete from event where job_id = any (v_ids);
        delete from dependency where job_id = any (v_ids);
        delete from dag_task where job_id = any (v_ids);
        delete from message where job_id = any (v_ids);
        delete from publication where job_id = any (v_ids);
        delete from follow_up where job_id = any (v_ids);
        delete from origin where job_id = any (v_ids);
        delete from usage where job_id = any (v_ids);
        delete from usage_thread where job_id = any (v_ids);
        delete from expiry
        using job
        where job.id = any (v_ids) and expiry.expires_at = job.expires_at and expiry.job_id = job.id;
        delete from job where id = any (v_ids);
        v_total := v_total + cardinality(v_ids);
    end loop;
    return v_total;
end;
$$;

comment on function moonmind_queue.prune(interval, integer) is 'Delete final jobs older than an age.';
-- <<<
-- >>> sql/put_artifact.sql
-- put_artifact(job, token, name, content, content_type, sha256) → the artifact's id.
--
-- For content that fits in one value; larger ones go through open_artifact() and append_artifact().
--
-- Contract
--   * By the lease holder only; immutable; a name is unique within an attempt. The same bytes
--     again change nothing and return the same id.
-- Locks     the job, its lease.
-- Events    artifact
-- Errors    MQ001, MQ002; 22023 no name or no content, a content type above 200 characters, or a
--           name under inputs/; 23505 the name is taken by other bytes; 23514 unsafe name;
--           22000 the bytes do not have the digest.
create or replace function moonmind_queue.put_artifact(
    p_job_id       bigint,
    p_token        bigint,
    p_name         text,
    p_content      bytea,
    p_content_type text default 'application/octet-stream',
    p_sha256       text default null
)
returns bigint
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_sha256 constant text := coalesce(lower(p_sha256), encode(sha256(p_content), 'hex'));
    v_id     bigint;
begin
    if p_content is null then
        raise exception 'put_artifact needs content, not null' using errcode = 'invalid_parameter_value';
    end if;
    v_id := open_artifact(
        p_job_id, p_token, p_name, coalesce(p_content_type, 'application/octet-stream'),
        octet_length(p_content), v_sha256
    );
    if v_id is null then
        if encode(sha256(p_content), 'hex') <> v_sha256 then
            raise exception 'artifact "%" was announced with sha256 % and has another', left(p_name, 100), left(p_sha256, 64)
                using errcode = 'data_exception';
        end if;
        select id into v_id from artifact where job_id = p_job_id and token = p_token and name = p_name;
    elsif octet_length(p_content) > 0 then
        perform append_artifact(v_id, p_token, p_content);
    end if;
    return v_id;
end;
$$;

comment on function moonmind_queue.put_artifact(bigint, bigint, text, bytea, text, text) is 'Store bytes as an artifact of a job that one holds.';
-- <<<
-- >>> sql/read_events.sql
-- read_events(cursor, limit) → the next events of all jobs, and the cursor to go on with in each row.
--
-- Contract
--   * Whoever goes on with the cursor of the page before reads every event exactly once, however
--     late its transaction commits, and those of a job in their order. No row: nothing new, keep
--     your cursor. Store it with what you make of the events, and you go on there after a crash.
--   * Nobody waits for a transaction that stays open: its events come when it has committed.
--   * The cursor names the positions not read yet, so it is exact: it opens with those below its
--     end that were not to be seen. One that nobody can fill any more is left out: when every
--     transaction that wrote events after the highest position was drawn has ended, by their
--     locks on event, which are taken before a position is drawn and held until the commit.
-- Errors    22023 not such a cursor, a limit below 1; 25000 not read committed, or a standby: an
--           old snapshot and a copy's locks do not show who writes.
create or replace function moonmind_queue.read_events(p_cursor text, p_limit integer default 1000)
returns table (
    job_id bigint, seq integer, at timestamptz, type text, level text, message text, worker text,
    data jsonb, agent text, kind text, name text, key text, cursor text
)
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set enable_hashjoin = off
set max_parallel_workers_per_gather = 0
set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
    v_left    int8multirange;
    v_mark    bigint;
    v_writers text[];
    v_high    bigint;
    v_writing text[];
    v_read    bigint[];
    v_to      bigint;
begin
    perform _check_reader(p_cursor, p_limit);
    v_left := split_part(p_cursor, ' ', 1)::int8multirange;
    v_mark := nullif(split_part(p_cursor, ' ', 2), '')::bigint;
    v_writers := string_to_array(split_part(p_cursor, ' ', 3), ',');

    -- In this order: who drew one of these positions has the lock; who has it no more is visible.
    v_high := coalesce(pg_sequence_last_value('moonmind_queue.event_pos_seq'), 0);
    v_writing := _event_writers();
    v_read := array(
        select next.pos
        from unnest(v_left) as part (positions)
        cross join lateral (
            select pos from event
            where pos >= lower(positions) and pos < coalesce(upper(positions), 9223372036854775807)
            order by pos
            limit p_limit
        ) as next
        order by next.pos
        limit p_limit
    );
    if v_read = '{}' then
        return;
    end if;
    v_left := v_left - (select range_agg(int8range(pos, pos, '[]')) from unnest(v_read) as pos);

    if v_mark is null then
        v_mark := v_high;
        v_writers := v_writing;
    end if;
    v_to := case when cardinality(v_read) = p_limit then v_read[p_limit] else v_high end;
    -- A transaction that was prepared meanwhile goes by another name: all prepared ones count.
    if not v_writers && v_writing and not exists (select from unnest(v_writing) as name where name like '-1/%') then
        v_left := v_left - int8multirange(int8range(null, least(v_mark, v_to), '[]'));
        v_mark := v_high;
        v_writers := v_writing;
    end if;

    return query
    select event.job_id, event.seq, event.at, event.type, event.level::text, event.message, event.worker, event.data,
           job.agent, job.kind, job.name::text, job.key::text, format('%s %s %s', v_left, v_mark, array_to_string(v_writers, ','))
    from event
    join job on job.id = event.job_id
    where event.pos = any (v_read)
    order by event.pos;
end;
$$;

comment on function moonmind_queue.read_events(text, integer) is 'Follow the events of all jobs with a cursor.';
-- <<<
-- >>> sql/reclaim.sql
-- reclaim(limit) → the jobs taken back or cancelled, and their new state.
--
-- Contract
--   * A lease that has run out: queued again with a rest, dead_letter when attempts are used up,
--     or cancelled if asked for. An attempt that took longer than its timeout ends the same way,
--     also while its worker still renews.
--   * The first lost lease of a job rests 1 s, for its worker died and not the job; each further
--     one, and one that timed out, rests like a failure.
--   * Jobs whose expires_at has come are cancelled.
--   * Nothing of an agent that an operator paused is touched.
--   * Anybody may call it at any time; workers do when something is due. While another session keeps
--     dead rows from being cleaned up, one that calls it often may be up to 30 s late.
-- Locks     the jobs in id order, their leases and dependents, skip locked.
-- Notifies  moonmind_queue; moonmind_queue_control with the worker's name.
-- Events    expired or timed_out, then dead_lettered or cancelled where it applies.
-- Errors    22023 a limit below 1.
create or replace function moonmind_queue.reclaim(p_limit integer default 100)
returns table (job_id bigint, state text)
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set enable_hashjoin = off
set max_parallel_workers_per_gather = 0
set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
    v_now   constant timestamptz := _now();
    v_found integer := 0;
    v_lost  record;
begin
    if coalesce(p_limit, 0) < 1 then
        raise exception 'reclaim needs a limit of at least 1, not %', p_limit
            using errcode = 'invalid_parameter_value';
    end if;
    if _leases_again(v_now) is null then
        for v_lost in
            with expired as materialized (
                select job_id from lease where expires_at <= v_now
            )
            select mine.id
            from (select job_id from expired order by job_id) as lost
            cross join lateral (  -- a fence: from each lease to its job, whatever statistics say
                select job.id
                from job
                join lease on lease.job_id = job.id
                where job.id = lost.job_id and lease.expires_at <= v_now and not _is_paused(job.agent, 'operator')
                for update of job, lease skip locked
            ) as mine
            limit p_limit
        loop
            v_found := v_found + 1;
            state := _take_back(v_lost.id);
            if state is not null then
                job_id := v_lost.id;
                return next;
            end if;
        end loop;
        if v_found < p_limit then
            perform _rest_from_leases(v_now);
        end if;
    end if;
    return query select * from _expire_due(p_limit);
end;
$$;

comment on function moonmind_queue.reclaim(integer) is 'Take jobs back whose lease ran out.';
-- <<<
-- >>> sql/redrive.sql
-- redrive(states, agent, kind, since, until, error, pace, limit, above, first_at, dry_run)
--         → the jobs that run again, lowest id first.
--
-- Contract
--   * retry() for every job in one of these states that ended at or after since and before until
--     (null: at any time), whose agent and kind are these (null: all), and whose error holds the
--     given text.
--   * Paced: the first runs at first_at (null: now), each further one pace later, so that what
--     failed together does not come back together.
--   * At most limit a call, ids above a given one only. To go on, call again with the last id as
--     above and the pace continued in first_at, until it returns none: no job comes twice, however
--     soon it fails again. Jobs that another session has locked are passed over.
--   * A dry run returns the jobs and changes nothing.
-- Locks     the jobs in id order, skip locked, and their dependents.
-- Notifies  moonmind_queue
-- Events    retried; waiting for dependents that were queued.
-- Errors    22023 states that are not final, a negative pace, a limit below 1.
create or replace function moonmind_queue.redrive(
    p_states text[]      default '{dead_letter,failed}',
    p_agent  text        default null,
    p_kind   text        default null,
    p_since  timestamptz default null,
    p_until  timestamptz default null,
    p_error  text        default null,
    p_pace   interval    default interval '0',
    p_limit  integer     default 1000,
    p_above  bigint      default 0,
    p_first_at timestamptz default null,
    p_dry_run  boolean     default false
)
returns setof bigint
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_first constant timestamptz := coalesce(p_first_at, _now());
    v_job   job;
    v_count integer := 0;
begin
    if p_states is null or not p_states <@ '{succeeded,failed,dead_letter,cancelled}' then
        raise exception 'redrive needs states that are final, not %', left(p_states::text, 100)
            using errcode = 'invalid_parameter_value';
    end if;
    if coalesce(p_pace, '-1 s') not between interval '0' and interval '1 day' or coalesce(p_limit, 0) < 1 then
        raise exception 'redrive needs a pace between 0 and a day and a limit of at least 1, not % and %', p_pace, p_limit
            using errcode = 'invalid_parameter_value';
    end if;
    for v_job in
        select *
        from job
        where id > coalesce(p_above, 0)
          and state = any (p_states)
          and (p_agent is null or agent = p_agent)
          and (p_kind is null or kind = p_kind)
          and (p_since is null or finished_at >= p_since)
          and (p_until is null or finished_at < p_until)
          and (p_error is null or strpos(error, p_error) > 0)
        order by id
        limit p_limit
        for update skip locked
    loop
        if not p_dry_run then
            -- Holding one job's dependents we must not wait for those of a lower one.
            continue when not _lock_jobs(array(select job_id from dependency where needs_job_id = v_job.id), false);
            perform _retry(v_job, v_first + p_pace * v_count);
            v_count := v_count + 1;
        end if;
        return next v_job.id;
    end loop;
end;
$$;

comment on function moonmind_queue.redrive(text[], text, text, timestamptz, timestamptz, text, interval, integer, bigint, timestamptz, boolean)
is 'Let all matching jobs that ended run again, paced.';
-- <<<
-- >>> sql/register_worker.sql
-- register_worker(worker, agents, kinds, capabilities, slots, host, pid, version, versions) → the id of this process start.
--
-- Errors    22023 a worker without a usable name, no slot, or no pid, host or version; MQ004 a name
--           that the login's policy does not list.
create or replace function moonmind_queue.register_worker(
    p_worker       text,
    p_agents       text[],
    p_kinds        text[],
    p_capabilities text[],
    p_slots        integer,
    p_host         text,
    p_pid          integer,
    p_version      text,
    p_versions     jsonb default '{}'
)
returns bigint
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_now constant timestamptz := _now();
    v_id  bigint;
begin
    perform _check_worker(p_worker, _policy());
    if coalesce(p_slots, 0) < 1 then
        raise exception 'a worker needs at least 1 slot, not %', coalesce(p_slots::text, 'null')
            using errcode = 'invalid_parameter_value';
    end if;
    if p_pid is null or coalesce(length(p_host), 201) > 200 or coalesce(length(p_version), 201) > 200 then
        raise exception 'a worker needs a pid, a host and a version of at most 200 characters, not %, % and %',
            coalesce(p_pid::text, 'null'), coalesce(left(p_host, 100), 'null'), coalesce(left(p_version, 100), 'null')
            using errcode = 'invalid_parameter_value';
    end if;
    insert into worker (
        worker, agents, kinds, capabilities, slots, host, pid, version, versions, role, started_at, seen_at
    )
    values (
        p_worker, p_agents, p_kinds, _capabilities(p_capabilities), p_slots, p_host, p_pid, p_version,
        coalesce(p_versions, '{}'), session_user, v_now, v_now
    )
    returning id into v_id;
    return v_id;
end;
$$;

comment on function moonmind_queue.register_worker(text, text[], text[], text[], integer, text, integer, text, jsonb)
is 'Record the start of a worker process.';
-- <<<
-- >>> sql/release.sql
-- release(job, token, reason, rest) → void; the holder hands the job back unharmed.
--
-- Contract
--   * Queued again at its old place; the attempt does not count.
--   * With a rest it is not claimed before that has passed: what it needs is in use.
--   * A cancel request that came first wins: cancelled.
-- Locks     the job, its lease; dependents of a job that is cancelled, in id order.
-- Notifies  moonmind_queue
-- Events    released, or cancelled.
-- Errors    MQ001, MQ002, MQ004; 22023 rest not between 0 and a year, reason above 64 KiB.
create or replace function moonmind_queue.release(
    p_job_id bigint,
    p_token  bigint,
    p_reason text     default null,
    p_rest   interval default null
)
returns void
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_lease  constant lease := _lock_lease(p_job_id, p_token);
    v_run_at timestamptz;
begin
    if p_rest not between interval '0' and interval '1 year' then
        raise exception 'a job is handed back for between 0 and a year, not %', p_rest
            using errcode = 'invalid_parameter_value';
    end if;
    perform _check_text('reason', p_reason);
    if v_lease.cancel_requested_at is not null then
        perform _end(p_job_id, 'cancelled', v_lease.cancel_reason, 'cancelled', 'warn', v_lease.worker);
        return;
    end if;
    update job set attempt = attempt - 1 where id = p_job_id returning run_at into v_run_at;
    perform _log(p_job_id, 'released', p_reason, p_worker => v_lease.worker);
    perform _queue(p_job_id, greatest(v_run_at, _now() + p_rest));
end;
$$;

comment on function moonmind_queue.release(bigint, bigint, text, interval) is 'Hand a leased job back; the attempt does not count.';
-- <<<
-- >>> sql/remove_schedule.sql
-- remove_schedule(name) → void; the jobs that it has brought stay.
--
-- Locks     the schedule; waits for a worker that is just enqueueing an occurrence.
-- Errors    MQ005
create or replace function moonmind_queue.remove_schedule(p_name text)
returns void
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
begin
    perform _lock_schedule(p_name);
    delete from schedule where name = p_name;
end;
$$;

comment on function moonmind_queue.remove_schedule(text) is 'Remove a schedule; its jobs stay.';
-- <<<
-- >>> sql/renew.sql
-- renew(jobs, tokens, lease) → the leases that are still held, with their new end.
--
-- Contract
--   * jobs[i] is held with tokens[i]. A row that is missing is a lease that is lost, or one that the
--     login's policy no longer admits: that job stops, the others go on.
--   * cancel_requested says that the holder should stop; lasts, how long the lease holds from now:
--     as asked for, or what the job's timeout leaves.
-- Locks     the leases, in job order; never a job, so a renewal waits for nobody's work.
-- Errors    22023 a lease not between 0 and a day, or lists of different length.
create or replace function moonmind_queue.renew(p_job_ids bigint[], p_tokens bigint[], p_lease interval)
returns table (job_id bigint, token bigint, expires_at timestamptz, cancel_requested boolean, lasts interval)
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set enable_hashjoin = off
set max_parallel_workers_per_gather = 0
set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
    v_now     constant timestamptz := _now();
    v_refused bigint[];
begin
    perform _check_lease(p_lease);
    if cardinality(p_job_ids) is distinct from cardinality(p_tokens) then
        raise exception 'renew needs a token for every job, not % for %', cardinality(p_tokens), cardinality(p_job_ids)
            using errcode = 'invalid_parameter_value';
    end if;
    v_refused := _not_admitted(p_job_ids, p_tokens);
    return query
    with held as materialized (
        select given.job_id
        from (
            select * from unnest(p_job_ids, p_tokens) as given (job_id, token)
            where given.job_id <> all (v_refused)
            order by given.job_id
        ) as given
        cross join lateral (
            select from lease where lease.job_id = given.job_id and lease.token = given.token for update
        ) as lease
    ),
    renewed as (
        update lease
        set expires_at = least(v_now + p_lease, lease.deadline_at)
        where lease.job_id = any (array(select held.job_id from held))
        returning lease.job_id, lease.token, lease.expires_at, lease.cancel_requested_at
    )
    select job_id, token, expires_at, cancel_requested_at is not null, expires_at - v_now from renewed order by job_id;
end;
$$;

comment on function moonmind_queue.renew(bigint[], bigint[], interval) is 'Extend all leases of a worker in one call.';
-- <<<
-- >>> sql/repair.sql
-- repair() → the jobs whose rows contradicted each other, and how; they are consistent now.
--
-- Contract
--   * The queue's own functions keep every rule in one transaction, so this finds nothing unless
--     somebody wrote the tables by hand. What it found is in the view queue_fault before.
--   * A job that has ended has an end, and no other has one.
--   * A job that should be claimable or waiting is put back; unmet counts are counted anew from
--     the edges; a lease without a leased job goes, a leased job without a lease is queued.
-- Locks     the jobs at fault, in id order.
-- Notifies  moonmind_queue
-- Events    repaired
create or replace function moonmind_queue.repair()
returns table (job_id bigint, fault text)
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
#variable_conflict use_column
declare
    v_job job;
begin
    for v_job in
        select * from job where id = any (array(select queue_fault.job_id from queue_fault)) order by id for update
    loop
        select v_job.id, string_agg(queue_fault.fault, '; ' order by queue_fault.fault)
        into job_id, fault
        from queue_fault
        where queue_fault.job_id = v_job.id;
        continue when fault is null;  -- somebody else was quicker
        update job
        set finished_at = case
            when state in ('succeeded', 'failed', 'dead_letter', 'cancelled') then coalesce(finished_at, updated_at)
        end
        where id = v_job.id;
        delete from ready where ready.job_id = v_job.id;
        delete from scheduled where scheduled.job_id = v_job.id;
        perform _log(v_job.id, 'repaired', fault, 'warn');
        if v_job.state in ('waiting', 'queued')
            or v_job.state in ('claimed', 'running') and not exists (select from lease where lease.job_id = v_job.id)
        then
            perform _queue(v_job.id, v_job.run_at);
        elsif v_job.state not in ('claimed', 'running') then
            delete from lease where lease.job_id = v_job.id;
        end if;
        return next;
    end loop;
    delete from ready where not exists (select from job where id = ready.job_id);
    delete from scheduled where not exists (select from job where id = scheduled.job_id);
    delete from lease where not exists (select from job where id = lease.job_id);
end;
$$;

comment on function moonmind_queue.repair() is 'Make rows agree again that somebody wrote by hand.';
-- <<<
-- >>> sql/replay.sql
-- replay(job, payload, agent) → the id of a new job that asks for the same once more.
--
-- Contract
--   * Whatever state the job is in, it stays as it is. The new one has its kind, name, priority,
--     attempts, capabilities, timeout and concurrency key, and is due at once: no key, no
--     dependencies, no time to expire, nothing that follows.
--   * Without a payload it is the job's own without publish: what runs again to be compared is not
--     published a second time. Without an agent it is the job's.
-- Locks     the login's row in allowance.
-- Notifies  moonmind_queue
-- Events    created
-- Errors    MQ002; 23514 a payload that is not an object; MQ004 the login's allowance does not admit it.
create or replace function moonmind_queue.replay(
    p_job_id  bigint,
    p_payload jsonb default null,
    p_agent   text  default null
)
returns bigint
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_id bigint;
begin
    select _add_jobs(
        jsonb_build_array(jsonb_build_object(
            'kind', job.kind, 'payload', coalesce(p_payload, job.payload - 'publish'),
            'agent', coalesce(p_agent, job.agent), 'name', job.name, 'priority', job.priority,
            'max_attempts', job.max_attempts, 'capabilities', lane.capabilities, 'timeout', job.timeout,
            'concurrency_key', nullif(lane.concurrency_key, ''), 'made_by', job.id
        )),
        p_how => 'replay'
    )
    into v_id
    from job
    join lane on lane.id = job.lane_id
    where job.id = p_job_id;
    if not found then
        raise exception 'job % does not exist', p_job_id using errcode = 'MQ002';
    end if;
    return v_id;
end;
$$;

comment on function moonmind_queue.replay(bigint, jsonb, text) is 'Enqueue once more what a job asked for.';
-- <<<
-- >>> sql/reset_dag.sql
-- reset_dag(dag, force) → the number of the epoch that begins: every task of the DAG is to run anew.
--
-- Contract
--   * Whatever has ended or is blocked runs again, and what rests runs now; attempts are counted
--     anew. Tasks that the file has lost stay blocked. The history stays.
--   * Refused while a task is held, unless forced: then it is taken away, and its token keeps the
--     late worker out.
-- Locks     the DAG; its jobs, in id order; then as retry() and unlock().
-- Notifies  moonmind_queue; moonmind_queue_control with the names of workers that lose a task.
-- Events    unlocked; retried
-- Errors    MQ002 no such DAG; MQ003 a task is held.
create or replace function moonmind_queue.reset_dag(p_dag text default 'agentmux', p_force boolean default false)
returns integer
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_now   constant timestamptz := _now();
    v_epoch integer;
    v_ids   bigint[];
    v_held  record;
    v_job   job;
begin
    update dag set epoch = epoch + 1, reset_at = v_now where name = p_dag returning epoch into v_epoch;
    if not found then
        raise exception 'there is no DAG %; seed it first', left(p_dag, 100) using errcode = 'MQ002';
    end if;
    v_ids := array(select job_id from dag_task where dag = p_dag and not gone);
    perform _lock_jobs(v_ids, true);
    for v_held in
        select job.id, job.key, lease.worker
        from lease
        join job on job.id = lease.job_id
        where lease.job_id = any (v_ids)
        order by job.id
    loop
        if not coalesce(p_force, false) then
            raise exception 'task % is held by %; stop the worker first, or force the reset', v_held.key, v_held.worker
                using errcode = 'MQ003';
        end if;
        perform unlock(v_held.id, true);
    end loop;
    for v_job in
        select * from job
        where id = any (v_ids)
          and (state not in ('waiting', 'queued') or attempt > 0 or run_at > v_now)
        order by id
    loop
        -- Read again: a task before it may have made it wait.
        select * into v_job from job where id = v_job.id;
        if v_job.state = 'queued' then
            perform _withdraw(v_job);
        end if;
        perform _retry(v_job, v_now);
    end loop;
    return v_epoch;
end;
$$;

comment on function moonmind_queue.reset_dag(text, boolean) is 'Let every task of a DAG run anew.';
-- <<<
-- >>> sql/resume.sql
-- resume(agent) → whether anything was paused; ends the pauses and cooldowns of this agent, or the one of all (null).
--
-- Locks     the rows in pause.
-- Notifies  moonmind_queue, of the agents that are free now.
create or replace function moonmind_queue.resume(p_agent text default null)
returns boolean
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_any boolean;
begin
    with ended as (
        delete from pause where agent = coalesce(p_agent, '*') returning until
    )
    select bool_or(until is null or until > _now()) into v_any from ended;
    perform _ring(case
        when p_agent is null then array(select distinct agent from lane)
        else array[p_agent]
    end);
    return coalesce(v_any, false);
end;
$$;

comment on function moonmind_queue.resume(text) is 'Let jobs of an agent be claimed again.';
-- <<<
-- >>> sql/retry.sql
-- retry(job) → the job's state now.
--
-- Contract
--   * A final or blocked job runs again, its attempts counted anew; dependents that counted its
--     end as met and have not started wait for it again.
--   * A queued job that rests or is scheduled runs now, its attempts kept.
-- Locks     the job; its row in scheduled; its dependents in id order.
-- Notifies  moonmind_queue
-- Events    retried; waiting for dependents that were queued.
-- Errors    MQ002; MQ003 when the job is leased or waits for others.
create or replace function moonmind_queue.retry(p_job_id bigint)
returns text
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_now constant timestamptz := _now();
    v_job constant job := _lock_job(p_job_id);
begin
    case
        when v_job.state in ('claimed', 'running') then
            raise exception 'job % cannot be retried: it is %', p_job_id, v_job.state using errcode = 'MQ003';
        when v_job.state = 'waiting' then
            raise exception 'job % cannot be retried: it waits for % other job(s)', p_job_id, v_job.unmet using errcode = 'MQ003';
        when v_job.state = 'queued' and v_job.run_at <= v_now then
            return v_job.state;
        when v_job.state = 'queued' then
            perform _withdraw(v_job);
            perform _log(p_job_id, 'retried', format('was %s', v_job.state));
            return _queue(p_job_id, v_now);
        else
            return _retry(v_job, v_now);
    end case;
end;
$$;

comment on function moonmind_queue.retry(bigint) is 'Let a final or blocked job run again, or a resting one now.';
-- <<<
-- >>> sql/run_schedule.sql
-- run_schedule(name, revision, due, next_at) → the ids of the jobs that were made.
--
-- Contract
--   * due are the occurrences that have come, in order, the first of them the schedule's own
--     next_at (none where that is null); next_at is the occurrence after them. Where the schedule
--     is paused, gone, changed or already further, nothing happens: somebody was quicker.
--   * An occurrence is missed when it is more than 60 s ago. What is not missed is enqueued; of what
--     is missed, nothing (skip), the latest (once: not these, if next_at is missed too), or all.
--   * The key of a job is schedule/<name>/<instant in UTC>: never two for one occurrence.
-- Locks     the schedule; passes over one that is locked, and so never waits.
-- Notifies  moonmind_queue
-- Events    created, scheduled
-- Errors    22023 occurrences out of order, in the future or more than 1,000.
create or replace function moonmind_queue.run_schedule(
    p_name     text,
    p_revision integer,
    p_due      timestamptz[],
    p_next_at  timestamptz
)
returns setof bigint
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_now      constant timestamptz := _now();
    v_late     constant timestamptz := v_now - interval '60 s';
    v_schedule schedule;
    v_missed   timestamptz;  -- the latest that was missed, next_at included
    v_chosen   timestamptz[];
    v_jobs     bigint[];
begin
    if p_due is null or p_next_at is null or cardinality(p_due) > 1000 or p_due[cardinality(p_due)] > v_now
        or exists (
            select from unnest(p_due) with ordinality as step (at, place)
            where (at < (p_due || p_next_at)[place + 1]) is not true
        ) then
        raise exception 'schedule %: needs up to 1,000 occurrences that have come, in order, and the next one', p_name
            using errcode = 'invalid_parameter_value';
    end if;
    select * into v_schedule
    from schedule
    where name = p_name and revision = p_revision and not paused and next_at is not distinct from p_due[1]
    for update skip locked;
    if not found then
        return;
    end if;

    select max(at) into v_missed from unnest(p_due || p_next_at) as at where at < v_late;
    select coalesce(array_agg(at order by at), '{}') into v_chosen
    from unnest(p_due) as at
    where at >= v_late or v_schedule.catch_up = 'all' or (v_schedule.catch_up = 'once' and at = v_missed);

    v_jobs := _enqueue_occurrences(v_schedule, v_chosen);
    update schedule
    set next_at = p_next_at,
        last_at = coalesce(v_chosen[cardinality(v_chosen)], last_at),
        last_job_id = coalesce(v_jobs[cardinality(v_jobs)], last_job_id),
        error = null,
        retry_at = null
    where name = p_name;
    return query select unnest(v_jobs);
end;
$$;

comment on function moonmind_queue.run_schedule(text, integer, timestamptz[], timestamptz)
is 'Enqueue what has come of a schedule and move it on.';
-- <<<
-- >>> sql/run_schedule_now.sql
-- run_schedule_now(name) → the id of a job like those of its occurrences, made at once.
--
-- Contract
--   * Without a key, besides the occurrences, and also while the schedule is paused.
-- Locks     the schedule.
-- Notifies  moonmind_queue
-- Events    created, scheduled
-- Errors    MQ005; those of enqueue_many.
create or replace function moonmind_queue.run_schedule_now(p_name text)
returns bigint
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_schedule constant schedule := _lock_schedule(p_name);
    v_job      constant bigint := enqueue_many(
        jsonb_build_array(jsonb_build_object('name', p_name) || v_schedule.job)
    );
begin
    perform _log(v_job, 'scheduled', format('by hand, from schedule %s', p_name),
                 p_data => jsonb_build_object('schedule', p_name));
    update schedule set last_job_id = v_job where name = p_name;
    return v_job;
end;
$$;

comment on function moonmind_queue.run_schedule_now(text) is 'Enqueue the job of a schedule by hand.';
-- <<<
-- >>> sql/say.sql
-- say(job, text) → the message's number; something for the agent at work on a job, heard at its next turn.
--
-- Contract
--   * For a job that has not ended: one that runs is told when the agent's turn is over, one that
--     waits when its next attempt begins.
-- Locks     the job.
-- Events    said
-- Errors    MQ002 no such job; MQ003 a job that has ended; 22023 no text, or above 16 KiB.
create or replace function moonmind_queue.say(p_job_id bigint, p_text text)
returns bigint
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_job constant job := _lock_job(p_job_id);
    v_id  bigint;
begin
    if coalesce(p_text, '') !~ '\S' or octet_length(p_text) > 16384 then
        raise exception 'a message needs a text of at most 16 KiB, and has % bytes', coalesce(octet_length(p_text), 0)
            using errcode = 'invalid_parameter_value';
    end if;
    if v_job.state in ('succeeded', 'failed', 'dead_letter', 'cancelled') then
        raise exception 'job % has ended: it is %', p_job_id, v_job.state using errcode = 'MQ003';
    end if;
    insert into message (job_id, said_at, said_by, content) values (p_job_id, _now(), session_user, p_text)
    returning id into v_id;
    perform _log(p_job_id, 'said', p_text, p_data => jsonb_build_object('by', session_user));
    return v_id;
end;
$$;

comment on function moonmind_queue.say(bigint, text) is 'Say something to the agent at work on a job.';
-- <<<
-- >>> sql/see_worker.sql
-- see_worker(id, stopped) → whether it is asked to end; the process is alive, or says that it ends.
--
-- Errors    MQ004 a worker that the login's policy does not list.
-- Errors    22023 a process that is not registered, or was away for so long that maintain() forgot it.
create or replace function moonmind_queue.see_worker(p_id bigint, p_stopped boolean default false)
returns boolean
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_stop boolean;
begin
    perform _check_worker(worker, _policy()) from worker where id = p_id;
    update worker
    set seen_at = _now(), stopped_at = case when p_stopped then _now() end
    where id = p_id
    returning stop_requested_at is not null into v_stop;
    if not found then
        raise exception 'worker process % is not registered', p_id using errcode = 'invalid_parameter_value';
    end if;
    if p_stopped then
        perform doze(p_id, false);
    end if;
    return v_stop;
end;
$$;

comment on function moonmind_queue.see_worker(bigint, boolean) is 'Record that a worker process is alive, or that it ends.';
-- <<<
-- >>> sql/seed_dag.sql
-- seed_dag(tasks, source, dag) → each task that was created, updated, unchanged, blocked or restored, and its job.
--
-- Contract
--   * tasks is an array of objects with id, agent, and optionally name, deps (ids of tasks beside
--     it), payload, priority, max_attempts, timeout and capabilities. All or nothing.
--   * A task is the job that has its id as key. New ones are created. Of others what is different
--     is updated, and their state is untouched: what is done stays done. An attempt under way keeps
--     what it was given.
--   * A task of this DAG that is not there any more is blocked, unless it is held or has ended,
--     and restored when it returns. Other jobs are left alone; source is where the tasks come from.
-- Locks     the DAG; every job that is or was a task of it, in id order.
-- Notifies  moonmind_queue
-- Events    created by agentmux-cli; updated; removed; retried.
-- Errors    22023 a task that cannot be read, an unknown dependency, a circle (with its path), by its
--           place and id; 23514 a value that the table refuses.
create or replace function moonmind_queue.seed_dag(
    p_tasks  jsonb,
    p_source text default '',
    p_dag    text default 'agentmux'
)
returns table (task text, job_id bigint, outcome text)
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
#variable_conflict use_column
declare
    v_jobs    jsonb;
    v_new     jsonb;
    v_made    bigint[] := '{}';
    v_changed bigint[];
    v_back    bigint[];
    v_gone    bigint[];
begin
    perform _check_tasks(p_tasks);
    v_jobs := _task_jobs(p_tasks);
    insert into dag (name, source, seeded_at)
    values (coalesce(p_dag, ''), coalesce(p_source, ''), _now())
    on conflict (name) do update set source = excluded.source, seeded_at = excluded.seeded_at;
    perform _lock_jobs(array(
        select job.id from job join jsonb_array_elements(v_jobs) as wanted on job.key = wanted ->> 'key'
        union
        select dag_task.job_id from dag_task where dag = p_dag
    ), true);

    select jsonb_agg(wanted order by place) into v_new
    from jsonb_array_elements(v_jobs) with ordinality as given (wanted, place)
    where not exists (select from job where key = wanted ->> 'key');
    if v_new is not null then
        v_made := array(select enqueue_many(v_new));
        update event  -- of this transaction, which nobody has seen yet
        set worker = 'agentmux-cli',
            data = jsonb_build_object(
                'name', wanted -> 'name', 'agent', wanted -> 'agent', 'deps', wanted -> 'after', 'source', p_source
            )
        from job
        join jsonb_array_elements(v_new) as wanted on job.key = wanted ->> 'key'
        where job.id = any (v_made) and event.job_id = job.id and event.seq = 1;
    end if;

    v_changed := _apply_changes(v_jobs);
    v_back := _restore_tasks(v_jobs, p_dag);
    v_gone := _block_gone(v_jobs, p_dag);
    return query
    select job.key::text, job.id, case
        when job.id = any (v_made) then 'created'
        when job.id = any (v_gone) then 'blocked'
        when job.id = any (v_back) then 'restored'
        when job.id = any (v_changed) then 'updated'
        else 'unchanged'
    end
    from (
        select wanted ->> 'key', place from jsonb_array_elements(v_jobs) with ordinality as given (wanted, place)
        union all
        select gone.key, null from job as gone where gone.id = any (v_gone)
    ) as concerned (key, place)
    join job on job.key = concerned.key
    order by concerned.place, job.id;
end;
$$;

comment on function moonmind_queue.seed_dag(jsonb, text, text) is 'Make the tasks of a DAG what its file says.';
-- <<<
-- >>> sql/set_allowance.sql
-- set_allowance(role, agents, kinds, repositories, max_open, max_per_day, max_depth) → void; what a login may enqueue.
--
-- Contract
--   * Null admits all; nothing but nulls takes the allowance away. It holds for what is enqueued from
--     now on; jobs that the login has added before are not counted.
--   * Repositories are kept as host/path in lower case; owner/repo is one of github.com, and
--     owner/* or host/owner/* admits all below.
-- Errors    22023 no such role, a list with a null, a repository that names none; 23514 a negative number.
create or replace function moonmind_queue.set_allowance(
    p_role         text,
    p_agents       text[]  default null,
    p_kinds        text[]  default null,
    p_repositories text[]  default null,
    p_max_open     integer default null,
    p_max_per_day  integer default null,
    p_max_depth    integer default null
)
returns void
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
begin
    if num_nonnulls(p_agents, p_kinds, p_repositories, p_max_open, p_max_per_day, p_max_depth) = 0 then
        delete from allowance where role = p_role;
        delete from enqueued where role = p_role;
        return;
    end if;
    if not exists (select from pg_roles where rolname = p_role) then
        raise exception 'there is no role %', left(p_role, 100) using errcode = 'invalid_parameter_value';
    end if;
    if exists (select from unnest(p_agents || p_kinds || p_repositories) as name where name is null) then
        raise exception 'the allowance of % has a list with a null in it', p_role using errcode = 'invalid_parameter_value';
    end if;
    if exists (
        select from unnest(p_repositories) as name where _repository(jsonb_build_object('repository', name)) = ''
    ) then
        raise exception 'the allowance of % has a repository that names none', p_role using errcode = 'invalid_parameter_value';
    end if;
    insert into allowance (role, agents, kinds, repositories, max_open, max_per_day, max_depth)
    values (
        p_role, p_agents, p_kinds,
        (select array_agg(_repository(jsonb_build_object('repository', name))) from unnest(p_repositories) as name),
        p_max_open, p_max_per_day, p_max_depth
    )
    on conflict (role) do update
    set agents = excluded.agents, kinds = excluded.kinds, repositories = excluded.repositories,
        max_open = excluded.max_open, max_per_day = excluded.max_per_day, max_depth = excluded.max_depth;
end;
$$;

comment on function moonmind_queue.set_allowance(text, text[], text[], text[], integer, integer, integer)
is 'Bind what a login may enqueue.';
-- <<<
-- >>> sql/set_backoff.sql
-- set_backoff(kind, base, cap, jitter) → void; how long failed jobs of this kind rest.
--
-- Contract
--   * base * 2^(attempt-1), at most cap, spread by the share jitter. A null base takes the row of
--     the kind away; that of * can only be changed.
-- Errors    22023 no kind, base not above 0, cap below base or above a year, jitter not a share.
create or replace function moonmind_queue.set_backoff(
    p_kind   text,
    p_base   interval,
    p_cap    interval         default interval '600 s',
    p_jitter double precision default 0.25
)
returns void
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
begin
    if p_kind = '*' and p_base is null then
        raise exception 'the back-off of * can be changed, not taken away' using errcode = 'invalid_parameter_value';
    end if;
    if coalesce(p_kind, '') = '' or length(p_kind) > 200
        or p_base is not null and not coalesce(
            p_base > interval '0' and p_cap >= p_base and p_cap <= interval '1 year' and p_jitter >= 0 and p_jitter < 1,
            false
        )
    then
        raise exception 'a back-off needs a kind, 0 < base <= cap <= 1 year and 0 <= jitter < 1, not %, %, % and %',
            left(p_kind, 200), p_base, p_cap, p_jitter
            using errcode = 'invalid_parameter_value';
    end if;
    if p_base is null then
        delete from backoff where kind = p_kind;
    else
        insert into backoff (kind, base, cap, jitter)
        values (p_kind, p_base, p_cap, p_jitter)
        on conflict (kind) do update set base = excluded.base, cap = excluded.cap, jitter = excluded.jitter;
    end if;
end;
$$;

comment on function moonmind_queue.set_backoff(text, interval, interval, double precision) is 'Say how long failed jobs of a kind rest.';
-- <<<
-- >>> sql/set_budget.sql
-- set_budget(scope, name, period, max_tokens, max_cost) → void; how many tokens or how much money may be used.
--
-- Contract
--   * scope job bounds each job of the kind name over all its attempts; repository and agent bound
--     those of that name together; queue, named *, all jobs. The name * serves each name of the
--     scope without a budget of its own for that period.
--   * period is a day or a month of UTC, or total; null: total for a job, day for all others.
--   * Where one is used up no job that it bounds is claimed until the period ends or the budget is
--     raised, and attempts that tell what they use are told to end. In place of the one that was.
-- Locks     the budgets, which are reckoned anew.
-- Notifies  moonmind_queue
-- Errors    22023 no scope or name, or a repository that names none; 23514 what the table refuses.
create or replace function moonmind_queue.set_budget(
    p_scope      text,
    p_name       text    default '*',
    p_period     text    default null,
    p_max_tokens bigint  default null,
    p_max_cost   numeric default null
)
returns void
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_name constant text := case when p_scope = 'repository' and p_name <> '*'
        then _repository(jsonb_build_object('repository', p_name)) else p_name end;
begin
    if p_scope is null or coalesce(v_name, '') = '' then
        raise exception 'a budget needs a scope of job, repository, agent or queue, and a name or *, not % and %',
            left(p_scope, 100), left(p_name, 100)
            using errcode = 'invalid_parameter_value';
    end if;
    perform _lock_budgets();
    insert into budget (scope, name, period, tokens, cost)
    values (
        p_scope, v_name, coalesce(p_period, case when p_scope = 'job' then 'total' else 'day' end),
        p_max_tokens, p_max_cost
    )
    on conflict (scope, name, period) do update set tokens = excluded.tokens, cost = excluded.cost;
    perform _reckon_budgets();
end;
$$;

comment on function moonmind_queue.set_budget(text, text, text, bigint, numeric) is 'Bound what may be used.';
-- <<<
-- >>> sql/set_failure_rule.sql
-- set_failure_rule(name, source, pattern, outcome, place, rest, most, pauses, advice) → void; what a failure means from now on.
--
-- Contract
--   * In place of the rule of that name, if there is one.
-- Errors    22023 no name, source, pattern or outcome; 2201B a pattern that is no regular
--           expression; 23514 a value that the table refuses.
create or replace function moonmind_queue.set_failure_rule(
    p_name    text,
    p_source  text,
    p_pattern text,
    p_outcome text,
    p_place   integer  default 0,
    p_rest    interval default null,
    p_most    integer  default null,
    p_pauses  boolean  default false,
    p_advice  text     default ''
)
returns void
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
begin
    if p_name is null or p_source is null or p_pattern is null or p_outcome is null then
        raise exception 'a failure rule needs a name, a source, a pattern and an outcome'
            using errcode = 'invalid_parameter_value';
    end if;
    insert into failure_rule (name, place, source, pattern, outcome, rest, most, pauses, advice)
    values (
        p_name, coalesce(p_place, 0), p_source, p_pattern, p_outcome, p_rest, p_most,
        coalesce(p_pauses, false), coalesce(p_advice, '')
    )
    on conflict (name) do update
    set place = excluded.place, source = excluded.source, pattern = excluded.pattern,
        outcome = excluded.outcome, rest = excluded.rest, most = excluded.most,
        pauses = excluded.pauses, advice = excluded.advice;
    perform '' ~* p_pattern;  -- last: the table has refused a long one, which takes minutes
end;
$$;

comment on function moonmind_queue.set_failure_rule(text, text, text, text, integer, interval, integer, boolean, text)
is 'Say what a failure means.';
-- <<<
-- >>> sql/set_limit.sql
-- set_limit(scope, name, max_running) → void; how many jobs of an agent, kind or concurrency_key may be leased at once.
--
-- Contract
--   * The name * serves each name of the scope without a row of its own. Null takes the limit away.
--   * Jobs that are leased go on, also above a limit that was lowered.
-- Notifies  moonmind_queue, for there may be room now.
-- Errors    22023 unknown scope, no name, a negative limit.
create or replace function moonmind_queue.set_limit(p_scope text, p_name text, p_max_running integer)
returns void
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
begin
    if coalesce(p_scope, '') not in ('agent', 'kind', 'concurrency_key') or coalesce(p_name, '') = ''
        or length(p_name) > 500 or p_max_running < 0
    then
        raise exception 'a limit needs a scope of agent, kind or concurrency_key, a name and a number of at least 0, not %, % and %',
            left(p_scope, 100), left(p_name, 100), p_max_running
            using errcode = 'invalid_parameter_value';
    end if;
    if p_max_running is null then
        perform _make_room();
        delete from run_limit where scope = p_scope and name = p_name;
    else
        insert into run_limit (scope, name, max_running)
        values (p_scope, p_name, p_max_running)
        on conflict (scope, name) do update set max_running = excluded.max_running;
        perform _make_room();
    end if;
end;
$$;

comment on function moonmind_queue.set_limit(text, text, integer) is 'Limit how many jobs run at once.';
-- <<<
-- >>> sql/set_policy.sql
-- set_policy(role, agents, kinds, repositories, capabilities, workers, content_types, artifact_max_bytes) → void; what a worker that logs in as this role may do.
--
-- Contract
--   * A null list admits all. Enforced in claim and in every call of a lease holder, from now on.
--   * Content types are what its artifacts may be, whatever their parameters: type/subtype or type/*.
--   * Repositories are kept as host/path in lower case; owner/repo is one of github.com, and
--     owner/* or host/owner/* admits all below.
-- Errors    22023 no such role, a list with a null, a repository that names none; 23514 a negative size.
create or replace function moonmind_queue.set_policy(
    p_role         text,
    p_agents       text[] default null,
    p_kinds        text[] default null,
    p_repositories text[] default null,
    p_capabilities text[] default null,
    p_workers      text[] default null,
    p_content_types      text[] default null,
    p_artifact_max_bytes bigint default null
)
returns void
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
begin
    if not exists (select from pg_roles where rolname = p_role) then
        raise exception 'there is no role %', left(p_role, 100) using errcode = 'invalid_parameter_value';
    end if;
    if array_position(p_agents || p_kinds || p_repositories || p_capabilities || p_workers || p_content_types, null) is not null then
        raise exception 'the policy of % has a list with a null in it', p_role using errcode = 'invalid_parameter_value';
    end if;
    if exists (
        select from unnest(p_repositories) as name where _repository(jsonb_build_object('repository', name)) = ''
    ) then
        raise exception 'the policy of % has a repository that names none', p_role using errcode = 'invalid_parameter_value';
    end if;
    insert into policy (role, agents, kinds, repositories, capabilities, workers, content_types, artifact_max_bytes)
    values (
        p_role, p_agents, p_kinds,
        (select array_agg(_repository(jsonb_build_object('repository', name))) from unnest(p_repositories) as name),
        case when p_capabilities is not null then _capabilities(p_capabilities) end, p_workers,
        lower(p_content_types::text)::text[], p_artifact_max_bytes
    )
    on conflict (role) do update
    set agents = excluded.agents, kinds = excluded.kinds, repositories = excluded.repositories,
        capabilities = excluded.capabilities, workers = excluded.workers,
        content_types = excluded.content_types, artifact_max_bytes = excluded.artifact_max_bytes;
end;
$$;

comment on function moonmind_queue.set_policy(text, text[], text[], text[], text[], text[], text[], bigint) is 'Bind a worker''s login role to a policy.';
-- <<<
-- >>> sql/set_price.sql
-- set_price(model, input, output, cached_input, since, currency) → void; what a million tokens cost from that day on, today by default.
--
-- Contract
--   * Cached input costs what input does where nothing is said. The name * serves every model
--     without a price of its own. A day with a price has the new one from now on.
--   * All prices are in one currency, for costs are added up. Budgets in money are reckoned anew.
-- Locks     the budgets.
-- Notifies  moonmind_queue
-- Errors    22023 no model, no price, or another currency than that of the other prices; 23514
--           what the table refuses.
create or replace function moonmind_queue.set_price(
    p_model        text,
    p_input        numeric,
    p_output       numeric,
    p_cached_input numeric default null,
    p_since        date    default null,
    p_currency     text    default null
)
returns void
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_since    constant date := coalesce(p_since, (_now() at time zone 'UTC')::date);
    v_currency text;
begin
    if p_model is null or p_input is null or p_output is null then
        raise exception 'a price needs a model, and what a million tokens of input and of output cost'
            using errcode = 'invalid_parameter_value';
    end if;
    perform _lock_budgets();
    select currency into v_currency from token_price where (model, since) <> (p_model, v_since) limit 1;
    if p_currency <> v_currency then
        raise exception 'all prices are in %, and so must this one be: costs are added up, and % is another currency',
            v_currency, left(p_currency, 100)
            using errcode = 'invalid_parameter_value';
    end if;
    insert into token_price (model, since, input, cached_input, output, currency)
    values (p_model, v_since, p_input, coalesce(p_cached_input, p_input), p_output, coalesce(p_currency, v_currency, 'USD'))
    on conflict (model, since) do update
    set input = excluded.input, cached_input = excluded.cached_input, output = excluded.output,
        currency = excluded.currency;
    perform _reckon_budgets();
end;
$$;

comment on function moonmind_queue.set_price(text, numeric, numeric, numeric, date, text) is 'Say what the tokens of a model cost.';
-- <<<
-- >>> sql/set_retention.sql
-- set_retention(keep) → void; how long maintain() keeps jobs that have ended, with their history and artifacts.
--
-- Contract
--   * Null: for ever. Live jobs are kept in any case.
-- Errors    22023 not above 0.
create or replace function moonmind_queue.set_retention(p_keep interval)
returns void
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
begin
    if p_keep <= interval '0' then
        raise exception 'jobs are kept for longer than nothing, or for ever with null, not for %', p_keep
            using errcode = 'invalid_parameter_value';
    end if;
    update retention set keep = p_keep where what = 'job';
end;
$$;

comment on function moonmind_queue.set_retention(interval) is 'Say how long jobs are kept that have ended.';
-- <<<
-- >>> sql/set_timeout.sql
-- set_timeout(kind, timeout) → void; how long an attempt at a job of this kind may take that does not say so itself.
--
-- Contract
--   * Kind * serves every kind without a row; it can be changed, not taken away (null).
--   * Counts for attempts claimed from now on.
-- Errors    22023 no kind, not between 0 and a year, null for *.
create or replace function moonmind_queue.set_timeout(p_kind text, p_timeout interval)
returns void
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
begin
    if p_kind = '*' and p_timeout is null then
        raise exception 'the timeout of * can be changed, not taken away' using errcode = 'invalid_parameter_value';
    end if;
    if coalesce(p_kind, '') = '' or length(p_kind) > 200
        or p_timeout <= interval '0' or p_timeout > interval '1 year'
    then
        raise exception 'a timeout needs a kind and must be longer than 0 and at most a year, not % and %',
            left(p_kind, 200), p_timeout
            using errcode = 'invalid_parameter_value';
    end if;
    if p_timeout is null then
        delete from run_timeout where kind = p_kind;
    else
        insert into run_timeout (kind, timeout)
        values (p_kind, p_timeout)
        on conflict (kind) do update set timeout = excluded.timeout;
    end if;
end;
$$;

comment on function moonmind_queue.set_timeout(text, interval) is 'Say how long attempts at a kind of job may take.';
-- <<<
-- >>> sql/start.sql
-- start(job, token) → void; the holder begins to run the job.
--
-- Contract
--   * claimed becomes running; on a job that is running already nothing happens.
-- Locks     the job, its lease.
-- Events    started
-- Errors    MQ001, MQ002, MQ004
create or replace function moonmind_queue.start(p_job_id bigint, p_token bigint)
returns void
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_now   constant timestamptz := _now();
    v_lease constant lease := _lock_lease(p_job_id, p_token);
begin
    update job
    set state = 'running', started_at = coalesce(started_at, v_now), updated_at = v_now
    where id = p_job_id and state = 'claimed';
    if found then
        update lease set started = true where job_id = p_job_id;
        perform _log(p_job_id, 'started', p_worker => v_lease.worker);
    end if;
end;
$$;

comment on function moonmind_queue.start(bigint, bigint) is 'Say that a claimed job is running.';
-- <<<
-- >>> sql/stop_worker.sql
-- stop_worker(id) → void; asks one start of a worker process to hand back its jobs and end.
--
-- Contract
--   * Bound to that start: a process that begins later under the same name never hears of it. The
--     worker hears at once through its control channel, and at its next sign of life anyway.
-- Notifies  moonmind_queue_control with the worker's name.
-- Errors    MQ002 no such process, or it has stopped.
create or replace function moonmind_queue.stop_worker(p_worker_id bigint)
returns void
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_worker text;
begin
    update worker
    set stop_requested_at = coalesce(stop_requested_at, _now())
    where id = p_worker_id and stopped_at is null
    returning worker into v_worker;
    if not found then
        raise exception 'worker process % is not running', p_worker_id using errcode = 'MQ002';
    end if;
    perform pg_notify('moonmind_queue_control', v_worker);
end;
$$;

comment on function moonmind_queue.stop_worker(bigint) is 'Ask a worker process to end.';
-- <<<
-- >>> sql/unlock.sql
-- unlock(job, force) → the job's state now; takes a lease away.
--
-- Contract
--   * Refused while the worker that holds the job is alive, unless forced: the token then keeps
--     the late worker out. The job is queued at once, or cancelled if asked for. The attempt
--     counts; was it the last one, then unlocking grants one more.
-- Locks     the job, its lease; dependents of a job that is cancelled, in id order.
-- Notifies  moonmind_queue; moonmind_queue_control with the worker's name.
-- Events    unlocked, then cancelled where it applies.
-- Errors    MQ002; MQ003 when the job is not leased or its worker is alive.
create or replace function moonmind_queue.unlock(p_job_id bigint, p_force boolean default false)
returns text
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_job   constant job := _lock_job(p_job_id);
    v_lease lease;
begin
    select * into v_lease from lease where job_id = p_job_id for update;
    if not found then
        raise exception 'job % is not leased: it is %', p_job_id, v_job.state using errcode = 'MQ003';
    end if;
    if not coalesce(p_force, false) and exists (
        select from worker_overview where worker = v_lease.worker and status = 'live'
    ) then
        raise exception 'job % is held by %, which is alive; unlock it by force to take it away', p_job_id, v_lease.worker
            using errcode = 'MQ003';
    end if;

    perform _log(p_job_id, 'unlocked', format('taken from %s', v_lease.worker), 'warn',
                 p_data => jsonb_build_object('forced', p_force));
    perform pg_notify('moonmind_queue_control', v_lease.worker);
    if v_lease.cancel_requested_at is not null then
        return _end(p_job_id, 'cancelled', v_lease.cancel_reason, 'cancelled', 'warn');
    end if;
    return _queue(p_job_id, _now());
end;
$$;

comment on function moonmind_queue.unlock(bigint, boolean) is 'Take a lease away from a worker that is gone.';
-- <<<
-- >>> sql/views.sql
-- Views for people, the command line and programs that only look. Column lists are promises:
-- columns are added at the end and never change their meaning.

create or replace view moonmind_queue.job_overview as
select job.id, job.key, job.name, job.agent, job.kind, job.state::text as state, job.priority,
       job.run_at, job.attempt, job.max_attempts, job.payload, job.result, job.error,
       job.created_at, job.updated_at, job.started_at, job.finished_at,
       lane.capabilities,
       lease.worker, lease.expires_at as lease_expires_at,
       lease.cancel_requested_at is not null as cancel_requested,
       array(
           select needs_job_id from moonmind_queue.dependency
           where dependency.job_id = job.id order by needs_job_id
       ) as after,
       job.timeout, job.expires_at, job.on_dependency_failure, nullif(lane.concurrency_key, '') as concurrency_key,
       nullif(lane.repository, '') as repository, lease.deadline_at
from moonmind_queue.job
left join moonmind_queue.lane on lane.id = job.lane_id
left join moonmind_queue.lease on lease.job_id = job.id;

comment on view moonmind_queue.job_overview is 'Every job with its lease and its dependencies.';

-- A job as JSON: the columns of job_overview, instants in ISO 8601 and UTC, durations in seconds. Lists
-- have the summary, which leaves the payload and the result where they are. `show --json`, `ls --json`
-- and Job.to_json() give the same, member by member; a test compares them.
create or replace view moonmind_queue.job_document as
select id, summary || jsonb_build_object('payload', payload, 'result', result) as document, summary
from (
    select id, payload, result, jsonb_build_object(
        'id', id,
        'key', key,
        'name', name,
        'agent', agent,
        'kind', kind,
        'state', state,
        'priority', priority,
        'run_at', to_char(run_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
        'attempt', attempt,
        'max_attempts', max_attempts,
        'error', error,
        'created_at', to_char(created_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
        'updated_at', to_char(updated_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
        'started_at', to_char(started_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
        'finished_at', to_char(finished_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
        'capabilities', capabilities,
        'worker', worker,
        'lease_expires_at', to_char(lease_expires_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
        'cancel_requested', cancel_requested,
        'after', after,
        'timeout', extract(epoch from timeout),
        'expires_at', to_char(expires_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
        'on_dependency_failure', on_dependency_failure,
        'concurrency_key', concurrency_key,
        'repository', repository,
        'deadline_at', to_char(deadline_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
    ) as summary
    from moonmind_queue.job_overview
) as job;

comment on view moonmind_queue.job_document is 'Every job as one JSON object: whole, and without payload and result for lists.';

create or replace view moonmind_queue.job_history as
select event.job_id, event.seq, event.at, event.type, event.level, event.message, event.worker,
       event.data, job.agent, job.kind, job.name, job.key, event.pos
from moonmind_queue.event
join moonmind_queue.job on job.id = event.job_id;

comment on view moonmind_queue.job_history is 'What happened, event by event; order by job_id, seq or by pos.';

create or replace view moonmind_queue.job_log as
select log_chunk.job_id, log_chunk.pos, log_chunk.at, log_chunk.attempt, log_chunk.stage, log_chunk.stream,
       log_chunk.content
from moonmind_queue.log_chunk;

comment on view moonmind_queue.job_log is 'What jobs print, piece by piece; order by job_id, pos.';

create or replace view moonmind_queue.job_artifact as
select id, job_id, attempt, name, content_type, size_bytes, sha256, created_at,
       attempt || '-' || token as run
from moonmind_queue.artifact
where sealed_at is not null;

comment on view moonmind_queue.job_artifact is 'The artifacts that are complete; their bytes are in artifact_content.';
comment on column moonmind_queue.job_artifact.run is 'Another one for each claim of the job: of its attempt, and its lease.';

create or replace view moonmind_queue.artifact_content as
select artifact_chunk.artifact_id, artifact_chunk.start_byte, artifact_chunk.content
from moonmind_queue.artifact_chunk
join moonmind_queue.artifact on artifact.id = artifact_chunk.artifact_id
where artifact.sealed_at is not null;

comment on view moonmind_queue.artifact_content is 'The bytes of complete artifacts, in order of start_byte.';

create or replace view moonmind_queue.worker_overview as
select id, worker,
       case
           when stopped_at is not null then 'stopped'
           when seen_at < moonmind_queue._now() - interval '120 s' then 'stale'
           else 'live'
       end as status,
       host, pid, version, agents, kinds, capabilities, slots,
       (select count(*) from moonmind_queue.lease where lease.worker = worker.worker) as leases,
       started_at, seen_at, stopped_at, versions, role::text as role, stop_requested_at
from moonmind_queue.worker;

comment on view moonmind_queue.worker_overview is 'Every start of a worker process: live, stale (unseen for two minutes) or stopped.';

create or replace view moonmind_queue.queue_status as
select agent, state::text as state, count(*) as jobs,
       min(run_at) filter (where state in ('queued', 'waiting', 'blocked')) as oldest_run_at,
       max(moonmind_queue._now() - run_at) filter (where state = 'queued' and run_at <= moonmind_queue._now())
           as longest_wait
from moonmind_queue.job
group by agent, state;

comment on view moonmind_queue.queue_status is 'How many jobs each agent has in each state, and how long the oldest has been ready.';

-- Each unmet need, with those of that need, as far as it goes; a step shows the way in words.
create or replace view moonmind_queue.blocked_job as
with recursive step as (
    select job.id as job_id, needed.id as needs_job_id, needed.state::text as state, needed.error, 1 as depth,
           format('needs job %s, which is %s', needed.id, needed.state) as reason
    from moonmind_queue.job
    join moonmind_queue.dependency on dependency.job_id = job.id
    join moonmind_queue.job needed
        on needed.id = dependency.needs_job_id
        and not moonmind_queue._is_met(needed.state, job.on_dependency_failure)
    where job.state = 'waiting'
    union all
    select * from (  -- one way to each need, not all of them: their number doubles with every step
        select distinct on (step.job_id, needed.id)
               step.job_id, needed.id, needed.state::text, needed.error, step.depth + 1,
               format('%s: it needs job %s, which is %s', step.reason, needed.id, needed.state)
        from step
        join moonmind_queue.job on job.id = step.needs_job_id
        join moonmind_queue.dependency on dependency.job_id = job.id
        join moonmind_queue.job needed
            on needed.id = dependency.needs_job_id
            and not moonmind_queue._is_met(needed.state, job.on_dependency_failure)
        where step.state = 'waiting' and step.depth < 20
        order by step.job_id, needed.id, step.needs_job_id
    ) as further
),
last_step as (
    select distinct on (job_id) job_id, reason, state, error
    from step
    where state <> 'waiting' or depth = 20
    order by job_id, state in ('failed', 'dead_letter', 'cancelled', 'blocked') desc, depth, needs_job_id
)
select job.id, job.key, job.name, job.agent, job.kind, job.state::text as state, job.unmet,
       case
           when job.state = 'blocked' then coalesce(job.error, 'blocked')
           when last_step.state in ('failed', 'dead_letter', 'cancelled', 'blocked')
               then last_step.reason || coalesce(' (' || last_step.error || ')', '')
           else coalesce(last_step.reason, format('needs %s other job(s)', job.unmet))
       end as reason
from moonmind_queue.job
left join last_step on last_step.job_id = job.id
where job.state in ('waiting', 'blocked');

comment on view moonmind_queue.blocked_job is 'Jobs that wait for others or for a person, with the reason in words.';

create or replace view moonmind_queue.paused_agent as
select agent, cause, reason, until, paused_at, paused_by
from moonmind_queue.pause
where until is null or until > moonmind_queue._now();

comment on view moonmind_queue.paused_agent
is 'Agents (*: all) whose jobs are not claimed now: by an operator, or because an account is used up (cooldown).';

create or replace view moonmind_queue.limit_overview as
with held as (
    select lane.agent, lane.kind, lane.concurrency_key
    from moonmind_queue.lease
    join moonmind_queue.lane on lane.id = lease.lane_id
)
select scope, name, max_running,
       case
           when name = '*' then null
           when scope = 'agent' then (select count(*) from held where held.agent = name)
           when scope = 'kind' then (select count(*) from held where held.kind = name)
           else (select count(*) from held where held.concurrency_key = name)
       end as running
from moonmind_queue.run_limit;

comment on view moonmind_queue.limit_overview
is 'How many jobs may be leased at once, and how many are; * serves every name without a limit of its own.';

create or replace view moonmind_queue.retention_overview as
select what, keep
from moonmind_queue.retention;

comment on view moonmind_queue.retention_overview
is 'How long what has ended is kept before maintain() deletes it; null: for ever. set_retention() says so.';

-- By lane, not by job: a million queued jobs have few lanes.
create or replace view moonmind_queue.unserved_lane as
with alive as (
    select worker_overview.*, policy
    from moonmind_queue.worker_overview
    left join moonmind_queue.policy on policy.role = worker_overview.role
    where status = 'live'
),
served as (
    select lane.id as lane_id,
           alive.agents is null or lane.agent = any (alive.agents) as same_agent,
           alive.kinds is null or lane.kind = any (alive.kinds) as same_kind,
           lane.capabilities <@ alive.capabilities as capable,
           (alive.policy).role is null or moonmind_queue._permits(alive.policy, lane) as admitted
    from moonmind_queue.lane
    cross join alive
),
fit as (
    select lane.id,
           coalesce(bool_or(same_agent), false) as agent,
           coalesce(bool_or(same_agent and same_kind), false) as kind,
           coalesce(bool_or(same_agent and same_kind and capable), false) as capabilities,
           coalesce(bool_or(same_agent and same_kind and capable and admitted), false) as policy
    from moonmind_queue.lane
    left join served on served.lane_id = lane.id
    group by lane.id
),
present as (select moonmind_queue._now() as now)
select lane.agent, lane.kind, lane.capabilities, nullif(lane.repository, '') as repository,
       waiting.jobs, waiting.oldest_job_id,
       case
           when fit.agent is not true then format('no live worker serves agent %s', lane.agent)
           when fit.kind is not true then format('no live worker of agent %s runs kind %s', lane.agent, lane.kind)
           when fit.capabilities is not true
               then format('no live worker offers all of %s', array_to_string(lane.capabilities, ', '))
           else 'no policy of a live worker admits it'
       end as reason,
       lane.id as lane_id
from moonmind_queue.lane
join fit on fit.id = lane.id and not fit.policy
cross join present
cross join lateral (
    select count(*) as jobs, min(job_id) as oldest_job_id
    from (
        select job_id from moonmind_queue.ready where ready.lane_id = lane.id
        union all  -- what no worker claims stays in scheduled also when its time has come
        select job_id from moonmind_queue.scheduled
        where scheduled.lane_id = lane.id and scheduled.run_at <= present.now
    ) as due
) as waiting
where waiting.jobs > 0;

comment on view moonmind_queue.unserved_lane is 'Jobs that are due and that no live worker can run, by what they ask for, with the reason.';

-- Read by people and by repair(); empty unless somebody wrote the tables by hand.
create or replace view moonmind_queue.queue_fault as
with place as (
    select lane_id, rank, job_id, null::timestamptz as run_at from moonmind_queue.ready
    union all
    select lane_id, rank, job_id, run_at from moonmind_queue.scheduled
),
unmet as (
    select dependency.job_id, count(*) as number
    from moonmind_queue.dependency
    join moonmind_queue.job on job.id = dependency.job_id
    left join moonmind_queue.job as needed on needed.id = dependency.needs_job_id
    where not moonmind_queue._is_met(needed.state, job.on_dependency_failure)
    group by dependency.job_id
)
select job.id as job_id, format('unmet is %s, its edges say %s', job.unmet, coalesce(unmet.number, 0)) as fault
from moonmind_queue.job
left join unmet on unmet.job_id = job.id
where job.state in ('waiting', 'queued') and job.unmet <> coalesce(unmet.number, 0)
union all
select id, format('it is %s and %s of its dependencies are not met', state, unmet)
from moonmind_queue.job
where state = 'waiting' and unmet = 0 or state = 'queued' and unmet > 0
union all
select id, format('it is %s and finished_at is %s', state, coalesce(finished_at::text, 'null'))
from moonmind_queue.job
where (state in ('succeeded', 'failed', 'dead_letter', 'cancelled')) <> (finished_at is not null)
union all
select id, format('its rank is %s, its priority and run_at say %s', rank, moonmind_queue._rank(priority, run_at))
from moonmind_queue.job
where state in ('waiting', 'queued') and rank <> moonmind_queue._rank(priority, run_at)
union all
select job.id, format('it is queued and has %s places among the claimable', count(place.job_id))
from moonmind_queue.job
left join place on place.job_id = job.id
where job.state = 'queued'
group by job.id
having count(place.job_id) <> 1
union all
select place.job_id, case
    when job.id is null then 'a place among the claimable has no job'
    when job.state <> 'queued' then format('it is %s and has a place among the claimable', job.state)
    else 'its place among the claimable is not the right one'
end
from place
left join moonmind_queue.job on job.id = place.job_id
where (job.lane_id, job.rank, job.state::text) is distinct from (place.lane_id, place.rank, 'queued')
   or place.run_at is not null and place.run_at <> job.run_at
union all
select coalesce(job.id, lease.job_id), case
    when job.id is null then 'a lease has no job'
    when lease.job_id is null then format('it is %s without a lease', job.state)
    when job.state not in ('claimed', 'running') then format('it is %s and has a lease', job.state)
    else format('it is in attempt %s and its lease in attempt %s', job.attempt, lease.attempt)
end
from (select * from moonmind_queue.job where state in ('claimed', 'running')) as leased
full join moonmind_queue.lease on lease.job_id = leased.id
left join moonmind_queue.job on job.id = coalesce(leased.id, lease.job_id)
where leased.id is null or lease.job_id is null or lease.attempt <> job.attempt or lease.lane_id <> job.lane_id;

comment on view moonmind_queue.queue_fault is 'Rows that contradict each other; always empty unless tables were written by hand. repair() mends them.';
create or replace view moonmind_queue.schedule_overview as
select name, cron, timezone, catch_up, paused, next_at, last_at, last_job_id, job, error, retry_at,
       created_at, updated_at
from moonmind_queue.schedule;

comment on view moonmind_queue.schedule_overview is 'Every schedule: when it comes next, and its latest job.';

-- One row per queued job; the reason is null when it only waits for its turn.
create or replace view moonmind_queue.queued_job as
with held as (
    select lane.agent, lane.kind, lane.concurrency_key
    from moonmind_queue.lease
    join moonmind_queue.lane on lane.id = lease.lane_id
),
used_up as (
    select distinct on (lane.id) lane.id as lane_id,
           format('%s %s is at its limit: %s of %s run', replace(scope.scope, '_', ' '), scope.name,
                  running.jobs, applied.max_running) as reason
    from moonmind_queue.lane
    cross join lateral (
        values ('agent', lane.agent), ('kind', lane.kind), ('concurrency_key', lane.concurrency_key)
    ) as scope (scope, name)
    cross join lateral (
        select run_limit.max_running
        from moonmind_queue.run_limit
        where run_limit.scope = scope.scope and run_limit.name in (scope.name, '*')
        order by run_limit.name = '*'
        limit 1
    ) as applied
    cross join lateral (
        select count(*) as jobs
        from held
        where scope.name = case scope.scope
            when 'agent' then held.agent when 'kind' then held.kind else held.concurrency_key
        end
    ) as running
    where scope.name <> '' and running.jobs >= applied.max_running
    order by lane.id, scope.scope
),
stopped as (
    select distinct on (lane.id) lane.id as lane_id,
           case when paused.agent = '*' then 'all agents are' else format('agent %s is', paused.agent) end
           || case paused.cause when 'cooldown' then ' cooling down' else ' paused' end
           || coalesce(to_char(paused.until at time zone 'UTC', '" until "YYYY-MM-DD HH24:MI" UTC"'), '')
           || coalesce(': ' || nullif(paused.reason, ''), '') as reason
    from moonmind_queue.lane
    join moonmind_queue.paused_agent as paused on paused.agent in (lane.agent, '*')
    order by lane.id, paused.until desc nulls first, paused.agent
),
overspent as (
    select distinct on (lane.id) lane.id as lane_id,
           spent.reason || coalesce(to_char(spent.until at time zone 'UTC', '", until "YYYY-MM-DD HH24:MI" UTC"'), '') as reason
    from moonmind_queue.lane
    join moonmind_queue.spent_budget as spent
        on (spent.scope, spent.name) in (('repository', lane.repository), ('agent', lane.agent), ('queue', '*'))
    where spent.until is null or spent.until > moonmind_queue._now()
    order by lane.id, spent.until desc nulls first, spent.scope
),
held_back as materialized (  -- by lane, not by job, as these reasons are
    select lane.id as lane_id, coalesce(stopped.reason, overspent.reason, used_up.reason, unserved.reason) as reason
    from moonmind_queue.lane
    left join stopped on stopped.lane_id = lane.id
    left join overspent on overspent.lane_id = lane.id
    left join used_up on used_up.lane_id = lane.id
    left join moonmind_queue.unserved_lane as unserved on unserved.lane_id = lane.id
),
present as (select moonmind_queue._now() as now)
select job.id, job.key, job.name, job.agent, job.kind, job.run_at,
       case
           when job.run_at > present.now and job.attempt > 0 then 'it rests after an attempt that failed'
           when job.run_at > present.now then 'its time has not come'
           else held_back.reason
       end as reason
from moonmind_queue.job
join held_back on held_back.lane_id = job.lane_id
cross join present
where job.state = 'queued';

comment on view moonmind_queue.queued_job
is 'Queued jobs and why they do not run yet, in words: time, pause, budget, limit, no worker; null: waits for its turn.';

create or replace view moonmind_queue.kind_rule as
select coalesce(backoff.kind, run_timeout.kind) as kind, run_timeout.timeout,
       backoff.base as backoff_base, backoff.cap as backoff_cap, backoff.jitter as backoff_jitter
from moonmind_queue.backoff
full join moonmind_queue.run_timeout on run_timeout.kind = backoff.kind;

comment on view moonmind_queue.kind_rule
is 'How long an attempt of a kind may take and how long it rests after a failure; null: as kind * says.';

-- By what a role may do as it is, through whatever groups; a superuser may do everything and is left out.
create or replace view moonmind_queue.role_overview as
with granted as (
    select login.oid, login.rolname, login.rolcanlogin,
           array_agg(substr(kind.rolname, 10) order by kind.rolname) filter (where kind.oid is not null) as kinds
    from pg_roles as login
    left join pg_roles as kind
        on kind.rolname in ('moonmind_producer', 'moonmind_worker', 'moonmind_operator', 'moonmind_reader')
        and kind.oid <> login.oid
        and pg_has_role(login.oid, kind.oid, 'usage')
    where not login.rolsuper
    group by login.oid, login.rolname, login.rolcanlogin
)
select coalesce(granted.rolname, policy.role)::text as role,
       coalesce(granted.kinds, '{}') as kinds,
       coalesce(granted.rolcanlogin, false) as can_log_in,
       policy.role is not null as has_policy,
       policy.agents, policy.job_kinds, policy.repositories, policy.capabilities, policy.workers,
       policy.content_types, policy.artifact_max_bytes,
       (
           select count(*) from pg_stat_activity
           where usesysid = granted.oid and datname = current_database()
       ) as connections,
       granted.oid is not null
           and shobj_description(granted.oid, 'pg_authid') is not distinct from 'moonmind-queue' as made_here
from granted
full join (
    select role, agents, kinds as job_kinds, repositories, capabilities, workers, content_types, artifact_max_bytes from moonmind_queue.policy
) as policy on policy.role = granted.rolname
where granted.kinds is not null or policy.role is not null;

comment on view moonmind_queue.role_overview
is 'Who may use this queue, by roles: what for, under which policy, and how many connections they have now.';

-- An attempt that was handed back is not in job.attempt; of the others all but the latest have failed, and
-- of the latest only its events tell where the job was blocked or cancelled.
create or replace view moonmind_queue.agentmux_task as
select coalesce(job.key, job.id::text) as id, job.name, job.agent,
       moonmind_queue._task_state(job.state) as state,
       array_to_json(array(
           select coalesce(needed.key, dependency.needs_job_id::text)
           from moonmind_queue.dependency
           left join moonmind_queue.job needed on needed.id = dependency.needs_job_id
           where dependency.job_id = job.id
           order by dependency.needs_job_id
       ))::jsonb as deps,
       jsonb_build_object('kind', job.kind) || job.payload as payload,
       job.result, lease.worker as claimed_by, lease.expires_at as lease_until,
       job.attempt - case
           when job.state in ('claimed', 'running', 'succeeded') then 1
           when job.attempt > 0 and job.state in ('blocked', 'cancelled') and (
               select type = 'claimed'
               from moonmind_queue.event
               where event.job_id = job.id
                 and type in ('claimed', 'failed', 'released', 'expired', 'timed_out', 'unlocked')
               order by seq desc
               limit 1
           ) then 1
           else 0
       end as retries,
       job.created_at, job.updated_at, job.id as job_id
from moonmind_queue.job
left join moonmind_queue.lease on lease.job_id = job.id;

comment on view moonmind_queue.agentmux_task is 'Every job as a task of Agentmux.';
comment on column moonmind_queue.agentmux_task.id
is 'The job''s key; without one its id. Only job_id is sure to be one job''s: a key may look like an id.';
comment on column moonmind_queue.agentmux_task.state
is 'READY, CLAIMED, RUNNING, BLOCKED, DONE, FAILED or CANCELLED; docs/sql.md has the map.';
comment on column moonmind_queue.agentmux_task.deps is 'The ids of the tasks that it needs, as an array.';
comment on column moonmind_queue.agentmux_task.retries
is 'Attempts that failed or lost their lease, from 0; one that was handed back does not count.';

create or replace view moonmind_queue.agentmux_event as
select event.at as ts,
       case when event.type = 'created' and event.worker = 'agentmux-cli' then event.worker else task.agent end as agent,
       event.worker as worker_id, moonmind_queue._task_event(event.type) as type, event.type as event,
       task.id as task_id, event.job_id, event.seq,
       case when jsonb_typeof(event.data) = 'object' then event.data
            when event.data is null then '{}'
            else jsonb_build_object('data', event.data) end
       || case event.message when '' then '{}' else jsonb_build_object('message', event.message) end as payload,
       event.pos
from moonmind_queue.event
join moonmind_queue.agentmux_task as task on task.job_id = event.job_id;

comment on view moonmind_queue.agentmux_event
is 'The events of job_history in the words of Agentmux; order by job_id, seq or by pos.';
comment on column moonmind_queue.agentmux_event.payload
is 'The data of the event, and its message, if it has one, as message.';
comment on column moonmind_queue.agentmux_event.type
is 'One of the words that Agentmux has; docs/agentmux.md has the map from event, our own.';

create or replace view moonmind_queue.agentmux_dag as
select dag.name, dag.source, dag.epoch, dag.seeded_at, dag.reset_at,
       count(task.job_id) filter (where not task.gone) as tasks,
       count(task.job_id) filter (where task.gone) as gone
from moonmind_queue.dag
left join moonmind_queue.dag_task as task on task.dag = dag.name
group by dag.name;

comment on view moonmind_queue.agentmux_dag is 'Every DAG that was seeded, with its epoch and how many tasks it has.';
comment on column moonmind_queue.agentmux_dag.gone is 'Tasks that are blocked because the file does not have them any more.';

create or replace view moonmind_queue.agentmux_member as
select dag, job_id, gone from moonmind_queue.dag_task;

comment on view moonmind_queue.agentmux_member is 'Which jobs are tasks of which DAG.';

create or replace view moonmind_queue.job_publication as
select job_id, step, content, data, begun_at, done_at, over
from moonmind_queue.publication;

comment on view moonmind_queue.job_publication is 'What jobs did outside of this database, or began to do; order by job_id, begun_at.';

-- What became of a job in three words that can be counted: nothing is stored for it, so jobs of every
-- kind and age have them.
create or replace view moonmind_queue.job_outcome as
select job.id as job_id, job.agent, job.kind, job.state::text as state,
       case
           when job.state <> 'succeeded' then job.state::text
           when job.result #>> '{published,pull_request}' <> '' then 'pull_request'
           when job.result #>> '{published,branch}' <> '' then 'branch'
           else coalesce(job.result ->> 'effect', 'succeeded')
       end as outcome,
       case
           when exists (
               select from moonmind_queue.publication
               where publication.job_id = job.id and not publication.over
           ) then 'publish'
           when job.started_at is null then 'queue'
           else 'run'
       end as stage,
       coalesce(
           case when job.state = 'succeeded' then job.result ->> 'summary' else job.error end, job.state::text
       ) as reason,
       job.finished_at
from moonmind_queue.job
where job.state in ('succeeded', 'failed', 'dead_letter', 'cancelled');

comment on view moonmind_queue.job_outcome is 'Of each job that has ended: how, at which stage and why.';
comment on column moonmind_queue.job_outcome.outcome
is 'pull_request, branch, changes, no_changes or commands_failed of a codex_exec job that succeeded, else the state.';
comment on column moonmind_queue.job_outcome.stage is 'The last that it came to: queue, run or publish.';

create or replace view moonmind_queue.job_message as
select id, job_id, said_at, said_by, content, heard_at
from moonmind_queue.message;

comment on view moonmind_queue.job_message is 'What was said to the agents at work on jobs; order by id.';

create or replace view moonmind_queue.failure_overview as
select name, place, source, pattern, outcome, rest, most, pauses, advice
from moonmind_queue.failure_rule;

comment on view moonmind_queue.failure_overview is 'What a failure means, by what a program printed; the first that matches counts, by place and name.';

create or replace view moonmind_queue.job_follow_up as
select follow_up.job_id, follow_up.event, follow_up.number, follow_up.job, follow_up.role::text as role,
       follow_up.made_job_id
from moonmind_queue.follow_up;

comment on view moonmind_queue.job_follow_up
is 'What jobs list to be enqueued on their success or failure, and what has become of it; order by job_id, event, number.';

create or replace view moonmind_queue.job_origin as
select job_id, from_job_id, how, depth,
       format(case how
           when 'success' then 'on success of job %s'
           when 'failure' then 'on failure of job %s'
           when 'replay' then 'replay of job %s'
           else 'made by job %s'
       end, from_job_id) as in_words
from moonmind_queue.origin;

comment on view moonmind_queue.job_origin
is 'Jobs that came from another job: on its success or failure, made in its course, or its replay.';
comment on column moonmind_queue.job_origin.depth
is 'How many jobs it is away from one that came from none; a replay counts as what it replays.';

create or replace view moonmind_queue.allowance_overview as
select allowance.role::text as role, allowance.agents, allowance.kinds as job_kinds, allowance.repositories,
       allowance.max_open, counted.open, allowance.max_per_day, counted.within_a_day, allowance.max_depth
from moonmind_queue.allowance
cross join lateral (
    select count(*) filter (where enqueued.at > moonmind_queue._now() - interval '1 day') as within_a_day,
           count(job.id) filter (where job.finished_at is null) as open
    from moonmind_queue.enqueued
    left join moonmind_queue.job on job.id = enqueued.job_id
    where enqueued.role = allowance.role
) as counted;

comment on view moonmind_queue.allowance_overview
is 'What logins may enqueue, and how much of it they have used; null: as much as they like.';

-- Costs are summed where prices are known; the tokens that have none are told beside them, so that
-- a sum that is too low can be seen to be.
create or replace view moonmind_queue.job_usage as
select usage.job_id, usage.attempt, usage.attempt || '-' || usage.token as run, usage.day,
       usage.model,
       usage.input_tokens::bigint as input_tokens, usage.cached_input_tokens::bigint as cached_input_tokens,
       usage.output_tokens::bigint as output_tokens, usage.reasoning_tokens::bigint as reasoning_tokens,
       moonmind_queue._token_cost(price, usage.input_tokens, usage.cached_input_tokens, usage.output_tokens) as cost,
       not usage.over as counts
from moonmind_queue.usage
left join lateral (
    select *
    from moonmind_queue.token_price
    where token_price.model in (usage.model, '*') and token_price.since <= usage.day
    order by token_price.model = '*', token_price.since desc
    limit 1
) as price on true;

comment on view moonmind_queue.job_usage is 'What each attempt used, by model and day of UTC; order by job_id, run, day.';
comment on column moonmind_queue.job_usage.model is 'Empty where nobody said which.';
comment on column moonmind_queue.job_usage.cached_input_tokens is 'Part of the input; as reasoning_tokens are of the output.';
comment on column moonmind_queue.job_usage.cost is 'In the currency of price_overview; null where no price is known.';
comment on column moonmind_queue.job_usage.counts is 'Whether it counts against the job''s own budget: not from before somebody retried it.';

create or replace view moonmind_queue.usage_overview as
select day, agent, kind, repository, model,
       input_tokens::bigint as input_tokens, cached_input_tokens::bigint as cached_input_tokens,
       output_tokens::bigint as output_tokens, reasoning_tokens::bigint as reasoning_tokens, cost,
       case when cost is null then input_tokens + output_tokens else 0 end as unpriced_tokens
from (
    select usage_day.*,
           moonmind_queue._token_cost(price, input_tokens, cached_input_tokens, output_tokens) as cost
    from moonmind_queue.usage_day
    left join lateral (
        select *
        from moonmind_queue.token_price
        where token_price.model in (usage_day.model, '*') and token_price.since <= usage_day.day
        order by token_price.model = '*', token_price.since desc
        limit 1
    ) as price on true
) as priced;

comment on view moonmind_queue.usage_overview
is 'What all jobs used, by day of UTC, agent, kind, repository and model; those that were pruned too.';
comment on column moonmind_queue.usage_overview.repository is 'Empty where the job named none, as model where nobody said which.';
comment on column moonmind_queue.usage_overview.cost is 'In the currency of price_overview; null where no price is known.';

create or replace view moonmind_queue.usage_by_repository as
select repository, sum(input_tokens)::bigint as input_tokens, sum(cached_input_tokens)::bigint as cached_input_tokens,
       sum(output_tokens)::bigint as output_tokens, sum(reasoning_tokens)::bigint as reasoning_tokens,
       sum(cost) as cost, sum(unpriced_tokens)::bigint as unpriced_tokens
from moonmind_queue.usage_overview
group by repository;

comment on view moonmind_queue.usage_by_repository is 'What all jobs used, by repository; cost is what of it has a price.';

create or replace view moonmind_queue.usage_by_model as
select model, sum(input_tokens)::bigint as input_tokens, sum(cached_input_tokens)::bigint as cached_input_tokens,
       sum(output_tokens)::bigint as output_tokens, sum(reasoning_tokens)::bigint as reasoning_tokens,
       sum(cost) as cost, sum(unpriced_tokens)::bigint as unpriced_tokens
from moonmind_queue.usage_overview
group by model;

comment on view moonmind_queue.usage_by_model is 'What all jobs used, by model; cost is what of it has a price.';

create or replace view moonmind_queue.usage_by_agent as
select agent, sum(input_tokens)::bigint as input_tokens, sum(cached_input_tokens)::bigint as cached_input_tokens,
       sum(output_tokens)::bigint as output_tokens, sum(reasoning_tokens)::bigint as reasoning_tokens,
       sum(cost) as cost, sum(unpriced_tokens)::bigint as unpriced_tokens
from moonmind_queue.usage_overview
group by agent;

comment on view moonmind_queue.usage_by_agent is 'What all jobs used, by agent; cost is what of it has a price.';

create or replace view moonmind_queue.usage_by_day as
select day, sum(input_tokens)::bigint as input_tokens, sum(cached_input_tokens)::bigint as cached_input_tokens,
       sum(output_tokens)::bigint as output_tokens, sum(reasoning_tokens)::bigint as reasoning_tokens,
       sum(cost) as cost, sum(unpriced_tokens)::bigint as unpriced_tokens
from moonmind_queue.usage_overview
group by day;

comment on view moonmind_queue.usage_by_day is 'What all jobs used, by day of UTC; cost is what of it has a price.';

create or replace view moonmind_queue.price_overview as
select model, since, input, cached_input, output, currency
from moonmind_queue.token_price;

comment on view moonmind_queue.price_overview
is 'What a million tokens of each model cost, and from which day on; * serves every model without a price.';

create or replace view moonmind_queue.budget_overview as
with present as (
    select moonmind_queue._now() at time zone 'UTC' as now
),
bounded as (
    select budget.*,
           case period when 'total' then date '-infinity' else date_trunc(period, present.now)::date end as begins,
           case when period <> 'total'
               then (date_trunc(period, present.now) + ('1 ' || period)::interval) at time zone 'UTC' end as until
    from moonmind_queue.budget
    cross join present
),
used as (
    select scope.scope, scope.name, usage.day, usage.input_tokens + usage.output_tokens as tokens, usage.cost
    from moonmind_queue.usage_overview as usage
    cross join lateral (
        values ('repository', usage.repository), ('agent', usage.agent), ('queue', '*')
    ) as scope (scope, name)
    where scope.name <> ''
),
applied as (
    select bounded.scope, coalesce(spent.name, bounded.name) as name, bounded.period, bounded.tokens, bounded.cost, bounded.until,
           case when bounded.scope <> 'job' then coalesce(spent.tokens, 0) end as used_tokens,
           spent.cost as used_cost
    from bounded
    left join lateral (
        select used.name, sum(used.tokens)::bigint as tokens, sum(used.cost) as cost
        from used
        where used.scope = bounded.scope
          and used.day >= bounded.begins
          and (used.name = bounded.name or bounded.name = '*' and not exists (
              select from moonmind_queue.budget as own
              where own.scope = used.scope and own.name = used.name and own.period = bounded.period
          ))
        group by used.name
    ) as spent on true
)
select scope, name, period, tokens::bigint as tokens, cost, used_tokens, used_cost, until, state.used_up,
       case when state.used_up then format(
           'the budget of %s%s is used up: %s',
           case scope when 'queue' then 'the queue' else scope || ' ' || name end,
           case period when 'total' then '' else ' for the ' || period end,
           case when used_tokens >= tokens then format('%s of %s tokens', used_tokens, tokens)
                else format('%s of %s %s', trim_scale(round(used_cost, 4)), cost,
                            (select currency from moonmind_queue.token_price limit 1)) end
       ) end as reason
from applied
cross join lateral (
    select coalesce(used_tokens >= tokens, false) or coalesce(used_cost >= cost, false) as used_up
) as state;

comment on view moonmind_queue.budget_overview
is 'Every budget and what is used of it in this period; * serves every name that is not listed.';
comment on column moonmind_queue.budget_overview.used_tokens is 'Input and output; null for the budget of each job, which has its own sum.';
comment on column moonmind_queue.budget_overview.used_cost is 'What of it has a price.';
comment on column moonmind_queue.budget_overview.until is 'When the period ends and the budget is whole again; null: never.';
-- <<<
-- >>> sql/grants.sql
-- Who may do what. The roles own nothing and write no table: they call functions, which run with
-- their owner's rights, and read views. Log in as a role of your own that is a member of one.
--
-- Roles belong to the whole server, so they may exist already, or be made by somebody else at
-- this moment; without the right to make them, ask your administrator for these four first.
do $$
declare
    v_role text;
begin
    foreach v_role in array '{moonmind_producer,moonmind_worker,moonmind_operator,moonmind_reader}'::text[] loop
        if not exists (select from pg_roles where rolname = v_role) then
            begin
                execute format('create role %I nologin', v_role);
            exception when duplicate_object or unique_violation then
                null;
            end;
        end if;
    end loop;
end;
$$;

revoke all on schema moonmind_queue from public;
revoke all on all functions in schema moonmind_queue from public;

grant usage on schema moonmind_queue to moonmind_producer, moonmind_worker, moonmind_operator, moonmind_reader;

-- Views call these with the rights of whoever reads them.
grant execute on function moonmind_queue._now(), moonmind_queue._is_met(text, text),
    moonmind_queue._rank(integer, timestamptz), moonmind_queue._task_state(text), moonmind_queue._task_event(text),
    moonmind_queue._permits(moonmind_queue.policy, moonmind_queue.lane),
    moonmind_queue._token_cost(moonmind_queue.token_price, numeric, numeric, numeric)
to moonmind_producer, moonmind_worker, moonmind_operator, moonmind_reader;

grant select on
    moonmind_queue.job_overview, moonmind_queue.job_history, moonmind_queue.job_log, moonmind_queue.job_artifact,
    moonmind_queue.artifact_content, moonmind_queue.worker_overview, moonmind_queue.queue_status,
    moonmind_queue.blocked_job, moonmind_queue.paused_agent, moonmind_queue.limit_overview,
    moonmind_queue.unserved_lane, moonmind_queue.queue_fault, moonmind_queue.job_document,
    moonmind_queue.queued_job,
    moonmind_queue.kind_rule, moonmind_queue.role_overview
to moonmind_producer, moonmind_worker, moonmind_operator, moonmind_reader;

grant execute on function
    moonmind_queue.enqueue(text, jsonb, text, text, text, integer, timestamptz, bigint[], integer, text[], interval, timestamptz, text, text, jsonb, jsonb, bigint),
    moonmind_queue.enqueue_many(jsonb),
    moonmind_queue.replay(bigint, jsonb, text),
    moonmind_queue.seed_dag(jsonb, text, text)
to moonmind_producer, moonmind_operator;

grant execute on function
    moonmind_queue.claim(text, text[], text[], text[], integer, interval, boolean, bigint[]),
    moonmind_queue.held_by(text),
    moonmind_queue.begin_step(bigint, bigint, text, text, jsonb),
    moonmind_queue.end_step(bigint, bigint, text, text, jsonb),
    moonmind_queue.hear(bigint, bigint, boolean),
    moonmind_queue.start(bigint, bigint),
    moonmind_queue.renew(bigint[], bigint[], interval),
    moonmind_queue.complete(bigint, bigint, jsonb),
    moonmind_queue.complete_many(bigint[], bigint[], jsonb[]),
    moonmind_queue.fail(bigint, bigint, text, text, interval, text),
    moonmind_queue.release(bigint, bigint, text, interval),
    moonmind_queue.append_event(bigint, bigint, text, text, text, jsonb),
    moonmind_queue.append_log(bigint, bigint, text, text, text),
    moonmind_queue.put_artifact(bigint, bigint, text, bytea, text, text),
    moonmind_queue.open_artifact(bigint, bigint, text, text, bigint, text),
    moonmind_queue.append_artifact(bigint, bigint, bytea),
    moonmind_queue.cool_down(bigint, bigint, interval, text),
    moonmind_queue.next_due(text[], text[], text[], bigint),
    moonmind_queue.doze(bigint, boolean),
    moonmind_queue.register_worker(text, text[], text[], text[], integer, text, integer, text, jsonb),
    moonmind_queue.see_worker(bigint, boolean)
to moonmind_worker;

grant execute on function moonmind_queue.reclaim(integer) to moonmind_worker, moonmind_operator;

grant execute on function moonmind_queue.peek(text[], text[], text[], integer, bigint[])
to moonmind_producer, moonmind_worker, moonmind_operator, moonmind_reader;

grant execute on function
    moonmind_queue.cancel(bigint, text),
    moonmind_queue.retry(bigint),
    moonmind_queue.redrive(text[], text, text, timestamptz, timestamptz, text, interval, integer, bigint, timestamptz, boolean),
    moonmind_queue.unlock(bigint, boolean),
    moonmind_queue.reset_dag(text, boolean),
    moonmind_queue.stop_worker(bigint),
    moonmind_queue.pause(text, text, timestamptz),
    moonmind_queue.resume(text),
    moonmind_queue.set_limit(text, text, integer),
    moonmind_queue.set_timeout(text, interval),
    moonmind_queue.set_failure_rule(text, text, text, text, integer, interval, integer, boolean, text),
    moonmind_queue.drop_failure_rule(text),
    moonmind_queue.say(bigint, text),
    moonmind_queue.set_backoff(text, interval, interval, double precision),
    moonmind_queue.set_policy(text, text[], text[], text[], text[], text[], text[], bigint),
    moonmind_queue.drop_policy(text),
    moonmind_queue.repair(),
    moonmind_queue.prune(interval, integer)
to moonmind_operator;

grant select on moonmind_queue.schedule_overview
to moonmind_producer, moonmind_worker, moonmind_operator, moonmind_reader;

grant execute on function
    moonmind_queue.due_schedules(integer),
    moonmind_queue.run_schedule(text, integer, timestamptz[], timestamptz),
    moonmind_queue.defer_schedule(text, integer, text)
to moonmind_worker;

grant execute on function
    moonmind_queue.add_schedule(text, text, jsonb, text, text, timestamptz),
    moonmind_queue.remove_schedule(text),
    moonmind_queue.pause_schedule(text, boolean),
    moonmind_queue.run_schedule_now(text)
to moonmind_operator;
grant select on moonmind_queue.retention_overview
to moonmind_producer, moonmind_worker, moonmind_operator, moonmind_reader;

grant execute on function moonmind_queue.event_cursor(timestamptz, integer), moonmind_queue.read_events(text, integer)
to moonmind_producer, moonmind_worker, moonmind_operator, moonmind_reader;

grant execute on function moonmind_queue.maintain(integer) to moonmind_worker, moonmind_operator;

grant execute on function moonmind_queue.set_retention(interval) to moonmind_operator;

grant select on moonmind_queue.agentmux_task, moonmind_queue.agentmux_event, moonmind_queue.agentmux_dag,
    moonmind_queue.agentmux_member, moonmind_queue.job_publication,
    moonmind_queue.job_message
to moonmind_producer, moonmind_worker, moonmind_operator, moonmind_reader;

grant select on moonmind_queue.failure_overview
to moonmind_producer, moonmind_worker, moonmind_operator, moonmind_reader;

grant execute on function moonmind_queue.classify_failure(text, text)
to moonmind_producer, moonmind_worker, moonmind_operator, moonmind_reader;

grant select on moonmind_queue.job_follow_up, moonmind_queue.job_origin, moonmind_queue.allowance_overview,
    moonmind_queue.job_outcome
to moonmind_producer, moonmind_worker, moonmind_operator, moonmind_reader;

grant execute on function moonmind_queue.set_allowance(text, text[], text[], text[], integer, integer, integer)
to moonmind_operator;

grant select on moonmind_queue.job_usage, moonmind_queue.usage_overview, moonmind_queue.usage_by_repository,
    moonmind_queue.usage_by_model, moonmind_queue.usage_by_agent, moonmind_queue.usage_by_day,
    moonmind_queue.price_overview, moonmind_queue.budget_overview
to moonmind_producer, moonmind_worker, moonmind_operator, moonmind_reader;

grant execute on function moonmind_queue.count_usage(bigint, bigint, text, text, bigint, bigint, bigint, bigint)
to moonmind_worker;

grant execute on function
    moonmind_queue.set_price(text, numeric, numeric, numeric, date, text),
    moonmind_queue.drop_price(text, date),
    moonmind_queue.set_budget(text, text, text, bigint, numeric),
    moonmind_queue.drop_budget(text, text, text)
to moonmind_operator;
-- <<<
