-- >>> sql/schema.sql
-- Tables, domains and indexes of the queue: the state that the functions act on.
--
-- One room per fact. What was asked for and how it stands is `job`. That it may be taken now is a
-- row in `ready`; that it may be taken later, a row in `scheduled`. That somebody has it is a row
-- in `lease`. What happened is `event`. A claim touches `ready`, which is small, and never the
-- million jobs that wait, are finished or belong to others.
--
-- Only the functions beside this file write these tables, so no foreign keys guard the hot ones.
-- Lock order, everywhere: the job acted on, then its dependents in id order; of one job first its
-- row in `job`, then `ready` or `scheduled`, then `lease`. `claim` and `reclaim` never wait: they
-- skip what is locked.
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

create table moonmind_queue.job (
    id           bigint generated always as identity primary key,
    key          text,
    name         text,
    agent        text        not null,
    kind         text        not null,
    state        moonmind_queue.job_state not null,
    priority     integer     not null default 0,
    run_at       timestamptz not null,
    attempt      integer     not null default 0,
    max_attempts integer     not null default 3,
    payload      jsonb       not null default '{}',
    result       jsonb,
    error        text,
    created_at   timestamptz not null,
    updated_at   timestamptz not null,
    started_at   timestamptz,
    finished_at  timestamptz,
    lane_id      integer     not null,
    unmet        integer     not null default 0,
    event_seq    integer     not null default 0,

    constraint job_agent_is_given check (agent ~ '^\S(.*\S)?$' and length(agent) <= 200),
    constraint job_kind_is_given check (kind ~ '^\S(.*\S)?$' and length(kind) <= 200),
    constraint job_key_is_short check (key <> '' and length(key) <= 500),
    constraint job_payload_is_an_object check (jsonb_typeof(payload) = 'object'),
    constraint job_result_is_an_object check (jsonb_typeof(result) = 'object'),
    constraint job_max_attempts_is_positive check (max_attempts >= 1),
    constraint job_attempt_is_not_negative check (attempt >= 0),
    -- Infinity cannot be subtracted, and Python's years end with 9999.
    constraint job_run_at_is_near check (
        run_at >= timestamptz '1900-01-01 00:00:00+00' and run_at < timestamptz '9000-01-01 00:00:00+00'
    ),
    constraint job_finished_iff_final check (
        (state in ('succeeded', 'failed', 'dead_letter', 'cancelled')) = (finished_at is not null)
    ),
    constraint job_waits_iff_unmet check (
        case state when 'waiting' then unmet > 0 when 'queued' then unmet = 0 else unmet >= 0 end
    )
)
with (fillfactor = 80);

create unique index job_key_idx on moonmind_queue.job (key) where key is not null;

comment on table moonmind_queue.job is 'One row per job: what was asked for and how it stands.';
comment on column moonmind_queue.job.key is 'Given by the producer; a second job with the same key is the same job.';
comment on column moonmind_queue.job.agent is 'Who is to do it; workers claim for the agents they serve.';
comment on column moonmind_queue.job.kind is 'What is to be done: names the executor.';
comment on column moonmind_queue.job.priority is 'Higher runs first.';
comment on column moonmind_queue.job.run_at is 'Not claimable before; among equals the older runs first.';
comment on column moonmind_queue.job.attempt is 'Claims that were not handed back, from 1; 0 before the first.';
comment on column moonmind_queue.job.error is 'Why the job is not succeeded: last failure, or reason of block or cancel.';
comment on column moonmind_queue.job.started_at is 'When an attempt first began to run.';
comment on column moonmind_queue.job.lane_id is 'The lane of its agent, kind and capabilities; never changes while it is queued.';
comment on column moonmind_queue.job.unmet is 'Dependencies that have not succeeded; kept while the job is waiting or queued.';
comment on column moonmind_queue.job.event_seq is 'The number of its latest event; assigned under this row''s lock, so without gaps.';

create table moonmind_queue.lane (
    id           integer generated always as identity primary key,
    agent        text    not null,
    kind         text    not null,
    capabilities text[]  not null,
    unique (agent, kind, capabilities)
);

comment on table moonmind_queue.lane
is 'One row per distinct agent, kind and set of required capabilities: the unit in which claimable jobs are ordered.';

create table moonmind_queue.ready (
    lane_id  integer     not null,
    priority integer     not null,
    run_at   timestamptz not null,
    job_id   bigint      not null
)
with (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);

create unique index ready_order_idx on moonmind_queue.ready (lane_id, priority desc, run_at, job_id);

comment on table moonmind_queue.ready is 'Jobs that can be claimed now, in claim order per lane; a claim deletes the row.';

create table moonmind_queue.scheduled (
    lane_id  integer     not null,
    run_at   timestamptz not null,
    job_id   bigint      not null,
    priority integer     not null,
    primary key (lane_id, run_at, job_id)
);

comment on table moonmind_queue.scheduled is 'Queued jobs whose run_at has not come; the first claim after it moves them to ready.';

create table moonmind_queue.dependency (
    job_id       bigint not null,
    needs_job_id bigint not null,
    primary key (job_id, needs_job_id),
    constraint dependency_is_on_another_job check (job_id <> needs_job_id)
);

create index dependency_needs_idx on moonmind_queue.dependency (needs_job_id, job_id);

comment on table moonmind_queue.dependency is 'job_id may start only when needs_job_id has succeeded.';

create sequence moonmind_queue.lease_token_seq;

create table moonmind_queue.lease (
    job_id              bigint      primary key,
    token               bigint      not null,
    attempt             integer     not null,
    expires_at          timestamptz not null,
    worker              text        not null,
    cancel_requested_at timestamptz,
    cancel_reason       text
)
-- Renewal rewrites expires_at in place: no index names it and half of each page stays free.
with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);

comment on table moonmind_queue.lease is 'One row per job that a worker holds.';
comment on column moonmind_queue.lease.token is 'The fence: new at every claim, never reused; every write of a holder carries it.';
comment on column moonmind_queue.lease.cancel_requested_at is 'Set when somebody asked for the running job to be cancelled.';

create table moonmind_queue.event (
    job_id  bigint      not null,
    seq     integer     not null,
    at      timestamptz not null,
    type    text        not null,
    level   text        not null default 'info',
    message text        not null default '',
    worker  text,
    data    jsonb,
    primary key (job_id, seq),
    constraint event_level_is_known check (level in ('debug', 'info', 'warn', 'error'))
);

create index event_at_idx on moonmind_queue.event using brin (at);

comment on table moonmind_queue.event is 'The history: append-only, numbered from 1 without gaps for each job.';
comment on column moonmind_queue.event.worker is 'Who did it: a worker, or the database role of a producer or operator.';

create table moonmind_queue.artifact (
    id           bigint generated always as identity primary key,
    job_id       bigint      not null,
    attempt      integer     not null,
    token        bigint      not null,
    name         text        not null,
    content_type text        not null,
    size_bytes   bigint      not null,
    sha256       text        not null,
    created_at   timestamptz not null,
    sealed_at    timestamptz,
    -- The token stands for the attempt here: a job that was handed back or retried by a person
    -- counts the same attempt number twice.
    unique (job_id, token, name),
    constraint artifact_name_is_safe check (
        name ~ '^[^/\\]+(/[^/\\]+)*$'
        and name !~ '(^|/)\.\.?(/|$)'
        and name !~ '[[:cntrl:]]'
        and name !~ '^[A-Za-z]:'
        and length(name) <= 512
    ),
    constraint artifact_content_type_is_given check (content_type ~ '^[[:graph:]]([[:print:]]*[[:graph:]])?$'),
    constraint artifact_size_is_not_negative check (size_bytes >= 0),
    constraint artifact_sha256_is_hexadecimal check (sha256 ~ '^[0-9a-f]{64}$')
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
    started_at   timestamptz not null,
    seen_at      timestamptz not null,
    stopped_at   timestamptz
);

create index worker_name_idx on moonmind_queue.worker (worker);

comment on table moonmind_queue.worker is 'One row per start of a worker process. Ownership of jobs is the lease, never this.';
comment on column moonmind_queue.worker.agents is 'Null: every agent.';

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
    perform _lock_needs(array(select distinct needs from unnest(v_needs) as needs where needs <> all (p_made)));
    insert into dependency (job_id, needs_job_id)
    select distinct child, needs from unnest(v_child, v_needs) as edge (child, needs);
    update job
    set state = 'waiting', unmet = waits.number
    from (
        select d.job_id, count(*) as number
        from dependency d
        join job parent on parent.id = d.needs_job_id
        where d.job_id = any (p_made) and parent.state <> 'succeeded'
        group by d.job_id
    ) as waits
    where job.id = waits.job_id;
end;
$$;

comment on function moonmind_queue._add_needs(jsonb, text[], bigint[], bigint[]) is 'Write the dependencies of new jobs.';
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
-- >>> sql/_capabilities.sql
-- _capabilities(names) → the names trimmed, in lower case, each once, in order; null is none.
--
-- Contract
--   * Jobs and workers are compared in this form, so case and surrounding blanks never matter.
create or replace function moonmind_queue._capabilities(p_names text[])
returns text[]
language sql
immutable
set search_path = moonmind_queue, pg_temp
as $$
    select coalesce(array_agg(distinct name order by name), '{}')
    from (select lower(btrim(name)) as name from unnest(p_names) as given (name)) as tidy
    where name <> '';
$$;

comment on function moonmind_queue._capabilities(text[]) is 'Capabilities in the form in which they are compared.';
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
        '{kind,payload,agent,name,key,priority,run_at,after,max_attempts,capabilities}';
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
            else 'unknown name ' || (select string_agg(quote_ident(left(name, 100)), ', ') from (
                select name from jsonb_object_keys(job - v_names) as name limit 5) as unknown)
        end
    ) into v_fault
    from jsonb_array_elements(p_jobs) with ordinality as given (job, place)
    where case
              when jsonb_typeof(job) <> 'object' then true
              else job - v_names <> '{}' or jsonb_typeof(job -> 'after') not in ('array', 'null')
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
-- _check_lease(worker, lease) → void, or an error.
--
-- Errors    22023 a worker without a name or with one too long to notify, or a lease that would be lost at birth or never.
create or replace function moonmind_queue._check_lease(p_worker text, p_lease interval)
returns void
language plpgsql
immutable
set search_path = moonmind_queue, pg_temp
as $$
begin
    if coalesce(p_worker, '') !~ '\S' or length(p_worker) > 200 then
        raise exception 'a lease needs the name of its worker, of at most 200 characters'
            using errcode = 'invalid_parameter_value';
    end if;
    if p_lease is null or p_lease <= interval '0' or p_lease > interval '1 day' then
        raise exception 'a lease must be longer than 0 and at most a day, not %', p_lease
            using errcode = 'invalid_parameter_value';
    end if;
end;
$$;

comment on function moonmind_queue._check_lease(text, interval) is 'Refuse a lease that cannot work.';
-- <<<
-- >>> sql/_end.sql
-- _end(job, state, error, type, level, worker, data) → the state; ends a job, or blocks it, with one event.
--
-- Contract
--   * The way into blocked, failed, dead_letter and cancelled; success has complete_many().
--   * Any lease is gone.
-- Locks     the job is locked by the caller.
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
    return p_state;
end;
$$;

comment on function moonmind_queue._end(bigint, text, text, text, text, text, jsonb) is 'End or block a locked job.';
-- <<<
-- >>> sql/_hold_dependents.sql
-- _hold_dependents(job) → void; a succeeded job will run again: who waits or is queued waits for it.
--
-- Contract
--   * Dependents that are leased, blocked or final are left alone; they took its success.
-- Locks     every dependent in id order.
-- Events    waiting, for one that was queued.
create or replace function moonmind_queue._hold_dependents(p_job_id bigint)
returns void
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_dependent job;
begin
    for v_dependent in
        select job.*
        from job
        where id = any (array(select job_id from dependency where needs_job_id = p_job_id))
        order by id
        for update
    loop
        if v_dependent.state = 'queued' then
            perform _withdraw(v_dependent);
            perform _log(v_dependent.id, 'waiting', format('job %s will run again', p_job_id));
        end if;
        update job
        set state = 'waiting', unmet = unmet + 1, updated_at = _now()
        where id = v_dependent.id and state in ('waiting', 'queued');
    end loop;
end;
$$;

comment on function moonmind_queue._hold_dependents(bigint) is 'Make dependents wait again for a job that will run again.';
-- <<<
-- >>> sql/_lane.sql
-- _lane(agent, kind, capabilities) → the id of their lane, made when it is new.
create or replace function moonmind_queue._lane(p_agent text, p_kind text, p_capabilities text[])
returns integer
language plpgsql
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
    v_capabilities constant text[] :=
        case when p_capabilities = '{}' then p_capabilities else _capabilities(p_capabilities) end;
    v_lane integer;
begin
    loop
        select id into v_lane
        from lane
        where agent = p_agent and kind = p_kind and capabilities = v_capabilities;
        exit when found;
        insert into lane (agent, kind, capabilities)
        values (p_agent, p_kind, v_capabilities)
        on conflict do nothing;
    end loop;
    return v_lane;
end;
$$;

comment on function moonmind_queue._lane(text, text, text[]) is 'The lane of an agent, a kind and required capabilities.';
-- <<<
-- >>> sql/_lanes.sql
-- _lanes(agents, kinds, capabilities) → the ids of the lanes that a worker may take from.
--
-- Contract
--   * A null list of agents or kinds admits all of them.
--   * A lane is admitted when the worker offers every capability that it requires.
create or replace function moonmind_queue._lanes(p_agents text[], p_kinds text[], p_capabilities text[])
returns integer[]
language plpgsql
stable
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_offered constant text[] := _capabilities(p_capabilities);
begin
    return array(
        select id
        from lane
        where (p_agents is null or agent = any (p_agents))
          and (p_kinds is null or kind = any (p_kinds))
          and capabilities <@ v_offered
    );
end;
$$;

comment on function moonmind_queue._lanes(text[], text[], text[]) is 'The lanes that a worker may take from.';
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
-- >>> sql/_lock_lease.sql
-- _lock_lease(job, token) → the lease, its job and itself locked, if this token holds it.
--
-- Every function that acts for one lease holder begins here, so the fence exists once.
-- Locks     the job, then its lease.
-- Errors    MQ001 lease lost, MQ002 no such job.
create or replace function moonmind_queue._lock_lease(p_job_id bigint, p_token bigint)
returns moonmind_queue.lease
language plpgsql
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
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
    return v_lease;
end;
$$;

comment on function moonmind_queue._lock_lease(bigint, bigint) is 'Lock a job on behalf of its lease holder, or raise.';
-- <<<
-- >>> sql/_lock_needs.sql
-- _lock_needs(jobs) → how many of these jobs have not succeeded yet.
--
-- Contract
--   * Until the caller's transaction ends none of them can succeed, so the count stays true.
-- Locks     the jobs, shared, in id order.
-- Errors    22023 when one does not exist or is null.
create or replace function moonmind_queue._lock_needs(p_job_ids bigint[])
returns integer
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_missing text;
    v_unmet   integer;
begin
    perform from job where id = any (p_job_ids) order by id for share;

    select string_agg(coalesce(needs.id::text, 'null'), ', ' order by needs.id) into v_missing
    from unnest(p_job_ids) as needs (id)
    where not exists (select from job where job.id = needs.id);
    if v_missing is not null then
        raise exception 'depends on unknown job %', v_missing
            using errcode = 'invalid_parameter_value';
    end if;

    select count(*) into v_unmet from job where id = any (p_job_ids) and state <> 'succeeded';
    return v_unmet;
end;
$$;

comment on function moonmind_queue._lock_needs(bigint[]) is 'Lock dependencies shared and count the unmet ones.';
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
-- >>> sql/_now.sql
-- _now() → the queue's time: the wall clock of the database server, not of the transaction.
--
-- Contract
--   * The only clock. Tests replace this function in their own databases; nothing else moves it.
create or replace function moonmind_queue._now()
returns timestamptz
language sql
set search_path = moonmind_queue, pg_temp
as $$
    select clock_timestamp();
$$;

comment on function moonmind_queue._now() is 'The one clock of the queue.';
-- <<<
-- >>> sql/_number_jobs.sql
-- _number_jobs(jobs) → place in the call, key, and the id that the job has or will have.
--
-- Contract
--   * A key that a job has already, or that stood earlier in the call, brings that job's id.
--   * A new job's id is above those of all that it needs, so that id order is a lock order.
-- Errors    22023 circle (with its path).
create or replace function moonmind_queue._number_jobs(p_jobs jsonb)
returns table (place bigint, key text, id bigint)
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
        select place, null::text, nextval('moonmind_queue.job_id_seq')
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
    select given.place, given.key, coalesce(given.known, made.id)
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
-- Notifies  moonmind_queue, once per agent; PostgreSQL folds equal ones of a transaction.
create or replace function moonmind_queue._offer(p_job_ids bigint[])
returns void
language plpgsql
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
    v_now   constant timestamptz := _now();
    v_agent text;
begin
    insert into ready (lane_id, priority, run_at, job_id)
    select lane_id, priority, run_at, id
    from job
    where id = any (p_job_ids) and state = 'queued' and run_at <= v_now;

    insert into scheduled (lane_id, priority, run_at, job_id)
    select lane_id, priority, run_at, id
    from job
    where id = any (p_job_ids) and state = 'queued' and run_at > v_now;

    for v_agent in select distinct agent from job where id = any (p_job_ids) and state = 'queued'
    loop
        perform pg_notify('moonmind_queue', v_agent);
    end loop;
end;
$$;

comment on function moonmind_queue._offer(bigint[]) is 'Make queued jobs claimable and wake workers.';
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
set enable_hashjoin = off
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
    insert into ready (lane_id, priority, run_at, job_id)
    select lane_id, priority, run_at, job_id from moved;
end;
$$;

comment on function moonmind_queue._promote(integer[], timestamptz) is 'Make scheduled jobs claimable whose time has come.';
-- <<<
-- >>> sql/_queue.sql
-- _queue(job, run_at) → its new state: queued, or waiting while a dependency has not succeeded.
--
-- Contract
--   * The one way back into the queue: after a failure, a lost lease, a release, a retry.
--   * Any lease is gone; the error stays until the job succeeds.
-- Locks     the job is locked by the caller.
create or replace function moonmind_queue._queue(p_job_id bigint, p_run_at timestamptz)
returns text
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_unmet integer;
begin
    delete from lease where job_id = p_job_id;
    select count(*) into v_unmet
    from dependency d
    left join job parent on parent.id = d.needs_job_id
    where d.job_id = p_job_id and parent.state is distinct from 'succeeded';

    update job
    set state = case when v_unmet > 0 then 'waiting' else 'queued' end,
        unmet = v_unmet,
        run_at = p_run_at,
        finished_at = null,
        updated_at = _now()
    where id = p_job_id;
    if v_unmet > 0 then
        return 'waiting';
    end if;
    perform _offer(array[p_job_id]);
    return 'queued';
end;
$$;

comment on function moonmind_queue._queue(bigint, timestamptz) is 'Put a locked job back into the queue, or park it.';
-- <<<
-- >>> sql/_release_dependents.sql
-- _release_dependents(jobs) → void; the jobs have succeeded: queue who waited for the last of them.
--
-- Contract
--   * A waiting dependent counts one unmet dependency less for each; at none it is queued.
-- Locks     every dependent in id order, whatever its state: one that is just coming back to
--           waiting counts this success itself or is counted here, never neither. The caller
--           has locked those it saw before it held these jobs; only now can none be added.
-- Events    ready
create or replace function moonmind_queue._release_dependents(p_job_ids bigint[])
returns void
language plpgsql
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
    v_now  constant timestamptz := _now();
    v_free bigint[];
begin
    perform from job
    where id = any (array(select job_id from dependency where needs_job_id = any (p_job_ids)))
    order by id
    for update;
    if not found then
        return;
    end if;

    with met as (
        select job_id, count(*) as number
        from dependency
        where needs_job_id = any (p_job_ids)
        group by job_id
    ),
    counted as (
        update job
        set unmet = unmet - number,
            state = case when unmet = number then 'queued' else 'waiting' end,
            event_seq = event_seq + (unmet = number)::integer,
            updated_at = v_now
        from met
        where job.id = met.job_id and job.state = 'waiting'
        returning id, state, event_seq
    ),
    logged as (
        insert into event (job_id, seq, at, type, message)
        select id, event_seq, v_now, 'ready', 'every dependency has succeeded'
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
-- >>> sql/_take.sql
-- _take(lanes, limit) → ids of the most urgent jobs of these lanes, locked and out of ready.
--
-- Contract
--   * Merges the heads of the lanes without locking, then locks in that order and skips what
--     another session holds; looks further down only when that left it with too few.
--   * The dependency subquery guards the claim: no job is taken whose needs have not all succeeded.
-- Locks     rows of job and ready, in this order, skip locked; no more than are returned.
create or replace function moonmind_queue._take(p_lanes integer[], p_limit integer)
returns bigint[]
language plpgsql
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
    v_depth integer := p_limit + 10;
    v_seen  integer;
    v_more  bigint[];
    v_taken bigint[] := '{}';
begin
    loop
        with heads as materialized (
            select head.*
            from unnest(p_lanes) as lane (id)
            cross join lateral (
                select r.lane_id, r.priority, r.run_at, r.job_id
                from ready r
                where r.lane_id = lane.id
                order by r.priority desc, r.run_at, r.job_id
                limit v_depth
            ) as head
            order by head.priority desc, head.run_at, head.job_id
            limit v_depth
        ),
        locked as materialized (  -- a fence: the planner may not repeat a locking limit
            select r.ctid
            from heads
            join ready r
                on (r.lane_id, r.priority, r.run_at, r.job_id)
                = (heads.lane_id, heads.priority, heads.run_at, heads.job_id)
            join job on job.id = heads.job_id
            where job.state = 'queued' and not exists (
                select from dependency
                left join job as needed on needed.id = dependency.needs_job_id
                where dependency.job_id = heads.job_id and needed.state is distinct from 'succeeded'
            )
            order by heads.priority desc, heads.run_at, heads.job_id
            limit p_limit - cardinality(v_taken)
            for update of job, r skip locked
        ),
        taken as (
            delete from ready
            where ctid = any (array(select locked.ctid from locked))
            returning ready.job_id
        )
        select (select count(*) from heads), coalesce(array_agg(job_id), '{}')
        into v_seen, v_more
        from taken;

        v_taken := v_taken || v_more;
        exit when cardinality(v_taken) >= p_limit or v_seen < v_depth;
        v_depth := v_depth * 4;
    end loop;
    return v_taken;
end;
$$;

comment on function moonmind_queue._take(integer[], integer) is 'Lock the most urgent claimable jobs.';
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
as $$
begin
    delete from scheduled
    where lane_id = p_job.lane_id and run_at = p_job.run_at and job_id = p_job.id;
    if not found then
        delete from ready
        where lane_id = p_job.lane_id
          and priority = p_job.priority
          and run_at = p_job.run_at
          and job_id = p_job.id;
    end if;
end;
$$;

comment on function moonmind_queue._withdraw(moonmind_queue.job) is 'Take a queued job out of the claimable set.';
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
    v_own   constant text[] := '{created,ready,waiting,claimed,started,completed,failed,released,expired,cancel_requested,cancelled,blocked,dead_lettered,retried,unlocked,artifact}';
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
-- >>> sql/cancel.sql
-- cancel(job, reason) → the job's state now.
--
-- Contract
--   * Not leased: cancelled at once. Leased: the request is recorded and wins over everything but
--     a completion that came first; the holder hears of it at once, and at its next renewal.
--   * A second request changes nothing, and so does one for a cancelled job.
-- Locks     the job; its row in ready or scheduled, or its lease. Waits for them: never "not found".
-- Notifies  moonmind_queue_control with the worker's name.
-- Events    cancelled or cancel_requested
-- Errors    MQ002; MQ003 when the job ended otherwise.
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
-- claim(worker, agents, kinds, capabilities, limit, lease, start) → the jobs now leased, most urgent first.
--
-- Contract
--   * Takes only jobs that are due, of the given agents and kinds (null: all), whose required
--     capabilities are all offered, and whose dependencies have all succeeded.
--   * Each job is claimed, or running at once with start; its attempt is one higher and its token
--     new. The pair (id, token) is the lease: every write of the holder carries it.
--   * Returns fewer than limit, or nothing, when there is not enough work. Never waits: what
--     another session has locked is skipped, and only what is returned stays locked.
--   * Does not touch expired leases; that is reclaim().
-- Locks     rows of job and ready, in claim order, skip locked.
-- Events    claimed, and started with start.
-- Errors    22023 worker blank or above 200 characters, limit below 1, lease not between 0 and a day.
create or replace function moonmind_queue.claim(
    p_worker       text,
    p_agents       text[]   default null,
    p_kinds        text[]   default null,
    p_capabilities text[]   default '{}',
    p_limit        integer  default 1,
    p_lease        interval default interval '120 s',
    p_start        boolean  default false
)
returns table (
    id bigint, kind text, agent text, name text, key text, payload jsonb, priority integer,
    attempt integer, max_attempts integer, token bigint, expires_at timestamptz
)
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
    v_now   constant timestamptz := _now();
    v_lanes constant integer[] := _lanes(p_agents, p_kinds, p_capabilities);
    v_ids   bigint[] := '{}';
begin
    perform _check_lease(p_worker, p_lease);
    if coalesce(p_limit, 0) < 1 then
        raise exception 'claim needs a limit of at least 1, not %', p_limit
            using errcode = 'invalid_parameter_value';
    end if;

    perform _promote(v_lanes, v_now);
    v_ids := _take(v_lanes, p_limit);
    if v_ids = '{}' then
        return;
    end if;

    return query
    with numbered as materialized (
        select id, nextval('moonmind_queue.lease_token_seq') as token from unnest(v_ids) as id
    ),
    leased as (
        update job
        set state = case when p_start then 'running' else 'claimed' end,
            attempt = attempt + 1,
            started_at = case when p_start then coalesce(started_at, v_now) else started_at end,
            updated_at = v_now,
            event_seq = event_seq + case when p_start then 2 else 1 end
        from numbered
        where job.id = numbered.id
        returning job.*, numbered.token
    ),
    held as (
        insert into lease (job_id, token, attempt, expires_at, worker)
        select id, token, attempt, v_now + p_lease, p_worker
        from leased
    ),
    logged as (
        insert into event (job_id, seq, at, type, worker, data)
        select id, event_seq - case when p_start then 1 else 0 end, v_now, 'claimed', p_worker,
               jsonb_build_object('attempt', attempt, 'lease_until', v_now + p_lease)
        from leased
        union all
        select id, event_seq, v_now, 'started', p_worker, null
        from leased
        where p_start
    )
    select id, kind, agent, name, key, payload, priority, attempt, max_attempts, token, v_now + p_lease
    from leased
    order by priority desc, run_at, id;
end;
$$;

comment on function moonmind_queue.claim(text, text[], text[], text[], integer, interval, boolean)
is 'Lease up to limit due jobs to a worker.';
-- <<<
-- >>> sql/complete.sql
-- complete(job, token, result) → void; the job has succeeded.
--
-- Contract
--   * As complete_many() for one job, but a lost lease is an error.
-- Locks     the job, its lease, its dependents in id order.
-- Errors    MQ001, MQ002; 23514 a result that is not an object.
create or replace function moonmind_queue.complete(p_job_id bigint, p_token bigint, p_result jsonb default '{}')
returns void
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
begin
    perform _lock_lease(p_job_id, p_token);
    perform complete_many(array[p_job_id], array[p_token], array[p_result]);
end;
$$;

comment on function moonmind_queue.complete(bigint, bigint, jsonb) is 'End a leased job well.';
-- <<<
-- >>> sql/complete_many.sql
-- complete_many(jobs, tokens, results) → the jobs that this call ended, and their state.
--
-- Contract
--   * jobs[i] is held with tokens[i] and ends as succeeded with results[i] (null: {}).
--   * A job that is missing from the answer is a lease that was lost; nothing of it changes.
--   * A cancel request that came first wins: the job is cancelled, its result kept.
--   * Dependents are released in the same transaction.
-- Locks     the jobs and their dependents in one id order, then the leases.
-- Notifies  moonmind_queue, for dependents.
-- Events    completed or cancelled; ready for dependents.
-- Errors    23514 a result that is not an object.
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
set enable_hashjoin = off
set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
    v_now       constant timestamptz := _now();
    v_done      bigint[];
    v_succeeded bigint[];
begin
    perform from job
    where id = any (p_job_ids || array(
        select dependency.job_id from dependency where needs_job_id = any (p_job_ids)
    ))
    order by id
    for update;

    with held as materialized (
        select given.job_id, lease.worker, lease.cancel_requested_at is not null as cancelled,
               lease.cancel_reason, coalesce(given.result, '{}') as result
        from (
            select * from unnest(p_job_ids, p_tokens, p_results) as given (job_id, token, result)
            order by given.job_id
        ) as given
        cross join lateral (
            select lease.*
            from lease
            where lease.job_id = given.job_id and lease.token = given.token
            for update
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
            event_seq = event_seq + 1
        from held
        where job.id = held.job_id
        returning job.id, job.event_seq, job.result, held.worker, held.cancelled, held.cancel_reason
    ),
    logged as (
        insert into event (job_id, seq, at, type, level, message, worker, data)
        select id, event_seq, v_now,
               case when cancelled then 'cancelled' else 'completed' end,
               case when cancelled then 'warn' else 'info' end,
               coalesce(cancel_reason, ''), worker, nullif(result, '{}')
        from ended
    )
    select array_agg(id), array_agg(id) filter (where not cancelled) into v_done, v_succeeded from ended;

    if v_succeeded is not null then
        perform _release_dependents(v_succeeded);
    end if;
    return query select id, job.state::text from job where id = any (v_done) order by id;
end;
$$;

comment on function moonmind_queue.complete_many(bigint[], bigint[], jsonb[]) is 'End many leased jobs well in one call.';
-- <<<
-- >>> sql/enqueue.sql
-- enqueue(kind, payload, agent, name, key, priority, run_at, after, max_attempts, capabilities) → job id.
--
-- Contract
--   * Part of the caller's transaction: the job exists exactly when that commits.
--   * The same key again returns the job that has it and changes nothing.
--   * With after, the job waits until every one of those jobs has succeeded.
--   * Higher priority runs first, then older run_at, then lower id.
-- Locks     the jobs named in after, shared, in id order: none of them can end unseen meanwhile.
-- Notifies  moonmind_queue
-- Events    created
-- Errors    22023 unknown dependency; 23514 a value that the table refuses.
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
    p_capabilities text[]      default '{}'
)
returns bigint
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
    v_now   constant timestamptz := _now();
    v_unmet integer := 0;
    v_id    bigint;
begin
    if p_key is not null then
        select id into v_id from job where key = p_key;
        if found then
            return v_id;
        end if;
    end if;
    if cardinality(p_after) > 0 then
        v_unmet := _lock_needs(p_after);
    end if;

    insert into job (
        key, name, agent, kind, state, priority, run_at, max_attempts, payload,
        created_at, updated_at, lane_id, unmet, event_seq
    )
    values (
        p_key, p_name, p_agent, p_kind, case when v_unmet > 0 then 'waiting' else 'queued' end,
        coalesce(p_priority, 0), coalesce(p_run_at, v_now), coalesce(p_max_attempts, 3),
        coalesce(p_payload, '{}'), v_now, v_now, _lane(p_agent, p_kind, p_capabilities), v_unmet, 1
    )
    on conflict (key) where key is not null do nothing
    returning id into v_id;
    if v_id is null then  -- another transaction was quicker with this key, and has committed
        select id into strict v_id from job where key = p_key;
        return v_id;
    end if;

    insert into dependency (job_id, needs_job_id)
    select distinct v_id, needs from unnest(p_after) as needs;
    insert into event (job_id, seq, at, type, worker)
    values (v_id, 1, v_now, 'created', session_user);
    if v_unmet = 0 then
        perform _offer(array[v_id]);
    end if;
    return v_id;
end;
$$;

comment on function moonmind_queue.enqueue(text, jsonb, text, text, text, integer, timestamptz, bigint[], integer, text[])
is 'Add a job, optionally after others; part of the caller''s transaction.';
-- <<<
-- >>> sql/enqueue_many.sql
-- enqueue_many(jobs) → their ids, in input order.
--
-- Contract
--   * jobs is an array of objects with the parameters of enqueue() as names, without p_.
--   * after may hold ids, and keys of this call or of jobs that exist; the order does not matter.
--   * All or nothing. A key that exists, or stands earlier in the call, is that job, unchanged.
-- Locks     keys in their order, then jobs named in after that existed before, shared, in id order.
-- Notifies  moonmind_queue, once per agent.
-- Events    created
-- Errors    22023 not an array of objects, unknown name, unknown dependency, circle (with its path);
--           23514 a value that the table refuses.
create or replace function moonmind_queue.enqueue_many(p_jobs jsonb)
returns setof bigint
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
    v_now  constant timestamptz := _now();
    v_keys text[];    -- by place in the call
    v_ids  bigint[];  -- by place in the call: what is returned
    v_made bigint[];  -- the jobs that this call makes
begin
    perform _check_jobs(p_jobs);
    select array_agg(key order by place), array_agg(id order by place) into v_keys, v_ids
    from _number_jobs(p_jobs);

    insert into lane (agent, kind, capabilities)
    select distinct coalesce(agent, 'codex'), kind, _capabilities(capabilities)
    from jsonb_to_recordset(p_jobs) as (agent text, kind text, capabilities text[])
    where kind is not null
    except select agent, kind, capabilities from lane
    order by 1, 2, 3  -- two calls with the same new ones wait for each other, never in a circle
    on conflict do nothing;

    with given as (
        select distinct on (v_ids[place]) *
        from rows from (
            jsonb_to_recordset(p_jobs) as (
                kind text, payload jsonb, agent text, name text, key text, priority integer,
                run_at timestamptz, max_attempts integer, capabilities text[]
            )
        ) with ordinality
            as job (kind, payload, agent, name, key, priority, run_at, max_attempts, capabilities, place)
        order by v_ids[place], place
    ),
    made as (
        insert into job (
            id, key, name, agent, kind, state, priority, run_at, max_attempts, payload,
            created_at, updated_at, lane_id, event_seq
        )
        overriding system value
        select v_ids[place], key, name, coalesce(given.agent, 'codex'), given.kind, 'queued',
               coalesce(priority, 0), coalesce(run_at, v_now), coalesce(max_attempts, 3),
               coalesce(payload, '{}'), v_now, v_now, coalesce(lane.id, 0), 1
        from given
        left join lane
            on lane.agent = coalesce(given.agent, 'codex')
            and lane.kind = given.kind
            and lane.capabilities = _capabilities(given.capabilities)
        where not exists (select from job where job.id = v_ids[place])
        order by key
        on conflict (key) where key is not null do nothing
        returning id
    )
    select coalesce(array_agg(id), '{}') into v_made from made;

    if array_remove(v_keys, null) <> '{}' then
        -- A transaction that committed one of the keys meanwhile has made that job.
        select array_agg(coalesce(job.id, numbered.id) order by place) into v_ids
        from unnest(v_keys, v_ids) with ordinality as numbered (key, id, place)
        left join job on job.key = numbered.key;
    end if;

    insert into event (job_id, seq, at, type, worker)
    select id, 1, v_now, 'created', session_user
    from unnest(v_made) as id;
    if jsonb_path_exists(p_jobs, '$[*].after[*]') then
        perform _add_needs(p_jobs, v_keys, v_ids, v_made);
    end if;
    perform _offer(v_made);
    return query select unnest(v_ids);
end;
$$;

comment on function moonmind_queue.enqueue_many(jsonb)
is 'Add many jobs in one call, dependencies among them included.';
-- <<<
-- >>> sql/fail.sql
-- fail(job, token, error, outcome, retry_in) → the job's new state.
--
-- Contract
--   * outcome retry: queued again after retry_in, or the back-off of its kind; dead_letter when
--     its attempts are used up. block: blocked until a person acts. fail: failed for good.
--   * A cancel request that came first wins: cancelled.
-- Locks     the job, its lease.
-- Notifies  moonmind_queue
-- Events    failed, then dead_lettered where it applies; or blocked; or cancelled.
-- Errors    MQ001, MQ002; 22023 unknown outcome, negative retry_in.
create or replace function moonmind_queue.fail(
    p_job_id   bigint,
    p_token    bigint,
    p_error    text,
    p_outcome  text     default 'retry',
    p_retry_in interval default null
)
returns text
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_lease constant lease := _lock_lease(p_job_id, p_token);
    v_job   job;
    v_rest  interval;
begin
    if coalesce(p_outcome, '') not in ('retry', 'block', 'fail') or p_retry_in < interval '0' then
        raise exception 'fail needs an outcome of retry, block or fail and a rest of at least 0, not % and %', p_outcome, p_retry_in
            using errcode = 'invalid_parameter_value';
    end if;
    if v_lease.cancel_requested_at is not null then
        return _end(p_job_id, 'cancelled', v_lease.cancel_reason, 'cancelled', 'warn', v_lease.worker,
                    jsonb_build_object('error', p_error));
    elsif p_outcome = 'block' then
        return _end(p_job_id, 'blocked', p_error, 'blocked', 'warn', v_lease.worker);
    elsif p_outcome = 'fail' then
        return _end(p_job_id, 'failed', p_error, 'failed', 'error', v_lease.worker,
                    jsonb_build_object('attempt', v_lease.attempt));
    end if;

    update job set error = p_error where id = p_job_id returning * into v_job;
    if v_job.attempt >= v_job.max_attempts then
        perform _log(p_job_id, 'failed', p_error, 'error', v_lease.worker,
                     jsonb_build_object('attempt', v_lease.attempt));
        return _end(p_job_id, 'dead_letter', p_error, 'dead_lettered', 'error', v_lease.worker,
                    jsonb_build_object('attempts', v_job.attempt));
    end if;
    v_rest := coalesce(p_retry_in, _backoff(v_job.kind, v_job.attempt));
    perform _log(p_job_id, 'failed', p_error, 'warn', v_lease.worker,
                 jsonb_build_object('attempt', v_lease.attempt, 'retry_at', _now() + v_rest));
    return _queue(p_job_id, _now() + v_rest);
end;
$$;

comment on function moonmind_queue.fail(bigint, bigint, text, text, interval) is 'End an attempt badly; retry, block or fail the job.';
-- <<<
-- >>> sql/next_due.sql
-- next_due(agents, kinds, capabilities) → how long until time alone brings such a worker something.
--
-- Contract
--   * The earliest run_at of a scheduled job that it may take, or the earliest end of any lease;
--     0 when that has passed, null when there is none.
--   * Reads only: an idle worker sleeps this long, or until it is notified.
create or replace function moonmind_queue.next_due(
    p_agents       text[] default null,
    p_kinds        text[] default null,
    p_capabilities text[] default '{}'
)
returns interval
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_lanes constant integer[] := _lanes(p_agents, p_kinds, p_capabilities);
    v_due   timestamptz;
begin
    select least(
        (
            select min(first.run_at)
            from unnest(v_lanes) as lane (id)
            cross join lateral (
                select run_at from scheduled where lane_id = lane.id order by run_at limit 1
            ) as first
        ),
        (select min(expires_at) from lease)
    ) into v_due;
    if v_due is null then  -- greatest() would pass over it
        return null;
    end if;
    return greatest(v_due - _now(), interval '0');
end;
$$;

comment on function moonmind_queue.next_due(text[], text[], text[]) is 'The sleep of an idle worker.';
-- <<<
-- >>> sql/open_artifact.sql
-- open_artifact(job, token, name, content_type, size_bytes, sha256) → the artifact's id, or null.
--
-- Begins an artifact whose bytes follow by append_artifact(). Nobody sees it before its last byte.
--
-- Contract
--   * By the lease holder only; a name is unique within an attempt.
--   * Null: this very artifact is there already, nothing more is to be sent.
--   * What an interrupted upload of the same name left behind is thrown away.
-- Locks     the job, its lease.
-- Events    artifact, when there are no bytes to wait for.
-- Errors    MQ001, MQ002; 22023 something is null, or a content type above 200 characters;
--           23505 the name is taken by other bytes; 23514 unsafe name, bad digest.
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
    if p_name is null or p_content_type is null or p_size_bytes is null or p_sha256 is null
        or length(p_content_type) > 200
    then
        raise exception 'an artifact needs a name, a content type of at most 200 characters, a size and a sha256, not %, %, % and %',
            coalesce(left(p_name, 100), 'null'), coalesce(left(p_content_type, 100), 'null'),
            coalesce(p_size_bytes::text, 'null'), coalesce(left(p_sha256, 64), 'null')
            using errcode = 'invalid_parameter_value';
    end if;
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
-- >>> sql/prune.sql
-- prune(older_than, limit) → how many jobs were deleted, with their history and artifacts.
--
-- Contract
--   * Only final jobs that ended longer ago, and only once no other job needs them: of a chain
--     the last job goes first.
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
        delete from event where job_id = any (v_ids);
        delete from dependency where job_id = any (v_ids);
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
-- Errors    MQ001, MQ002; 22023 no name or no content, or a content type above 200 characters;
--           23505 the name is taken by other bytes; 23514 unsafe name;
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
    v_sha256 constant text := encode(sha256(p_content), 'hex');
    v_id     bigint;
begin
    if p_content is null then
        raise exception 'put_artifact needs content, not null' using errcode = 'invalid_parameter_value';
    end if;
    if lower(p_sha256) <> v_sha256 then
        raise exception 'artifact "%" was announced with sha256 % and has %', left(p_name, 100), left(p_sha256, 64), v_sha256
            using errcode = 'data_exception';
    end if;
    v_id := open_artifact(
        p_job_id, p_token, p_name, coalesce(p_content_type, 'application/octet-stream'),
        octet_length(p_content), v_sha256
    );
    if v_id is null then
        select id into v_id from artifact where job_id = p_job_id and token = p_token and name = p_name;
    elsif octet_length(p_content) > 0 then
        perform append_artifact(v_id, p_token, p_content);
    end if;
    return v_id;
end;
$$;

comment on function moonmind_queue.put_artifact(bigint, bigint, text, bytea, text, text) is 'Store bytes as an artifact of a job that one holds.';
-- <<<
-- >>> sql/reclaim.sql
-- reclaim(limit) → the jobs whose leases had run out, and their new state.
--
-- Contract
--   * Queued again with a rest, dead_letter when attempts are used up, or cancelled if asked for.
--   * The first lost lease of a job rests 1 s, for its worker died and not the job; each further
--     one rests like a failure, so a job that kills its workers cannot run them down.
--   * Anybody may call it at any time; workers do on a timer.
-- Locks     the jobs in id order and their leases, skip locked.
-- Notifies  moonmind_queue
-- Events    expired, then dead_lettered or cancelled where it applies.
create or replace function moonmind_queue.reclaim(p_limit integer default 100)
returns table (job_id bigint, state text)
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
#variable_conflict use_column
declare
    v_now  constant timestamptz := _now();
    v_lost record;
begin
    for v_lost in
        select job.id, job.kind, job.attempt, job.max_attempts, lease.worker, lease.token,
               lease.expires_at, lease.cancel_requested_at, lease.cancel_reason
        from lease
        join job on job.id = lease.job_id
        where lease.expires_at <= v_now
        order by lease.job_id
        limit p_limit
        for update of job, lease skip locked
    loop
        job_id := v_lost.id;
        perform _log(v_lost.id, 'expired', format('the lease of %s ran out', v_lost.worker), 'warn', v_lost.worker,
                     jsonb_build_object('attempt', v_lost.attempt, 'expired_at', v_lost.expires_at));
        if v_lost.cancel_requested_at is not null then
            state := _end(v_lost.id, 'cancelled', v_lost.cancel_reason, 'cancelled', 'warn');
        elsif v_lost.attempt >= v_lost.max_attempts then
            state := _end(v_lost.id, 'dead_letter',
                          format('the lease of %s ran out in the last of %s attempts', v_lost.worker, v_lost.max_attempts),
                          'dead_lettered', 'error', p_data => jsonb_build_object('attempts', v_lost.attempt));
        else
            update job set error = format('the lease of %s ran out', v_lost.worker) where id = v_lost.id;
            state := _queue(v_lost.id, v_now + case
                when _lost_leases(v_lost.id) <= 1 then interval '1 s'
                else _backoff(v_lost.kind, v_lost.attempt)
            end);
        end if;
        return next;
    end loop;
end;
$$;

comment on function moonmind_queue.reclaim(integer) is 'Take jobs back whose lease ran out.';
-- <<<
-- >>> sql/register_worker.sql
-- register_worker(worker, agents, kinds, capabilities, slots, host, pid, version) → the id of this process start.
--
-- Errors    22023 worker blank or above 200 characters, no slot, or no pid, host or version.
create or replace function moonmind_queue.register_worker(
    p_worker       text,
    p_agents       text[],
    p_kinds        text[],
    p_capabilities text[],
    p_slots        integer,
    p_host         text,
    p_pid          integer,
    p_version      text
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
    if coalesce(p_worker, '') !~ '\S' or length(p_worker) > 200 or coalesce(p_slots, 0) < 1 then
        raise exception 'a worker needs a name of at most 200 characters and at least 1 slot, not % and %',
            coalesce(left(p_worker, 100), 'null'), coalesce(p_slots::text, 'null')
            using errcode = 'invalid_parameter_value';
    end if;
    if p_pid is null or coalesce(length(p_host), 201) > 200 or coalesce(length(p_version), 201) > 200 then
        raise exception 'a worker needs a pid, a host and a version of at most 200 characters, not %, % and %',
            coalesce(p_pid::text, 'null'), coalesce(left(p_host, 100), 'null'), coalesce(left(p_version, 100), 'null')
            using errcode = 'invalid_parameter_value';
    end if;
    insert into worker (worker, agents, kinds, capabilities, slots, host, pid, version, started_at, seen_at)
    values (p_worker, p_agents, p_kinds, _capabilities(p_capabilities), p_slots, p_host, p_pid, p_version, v_now, v_now)
    returning id into v_id;
    return v_id;
end;
$$;

comment on function moonmind_queue.register_worker(text, text[], text[], text[], integer, text, integer, text) is 'Record the start of a worker process.';
-- <<<
-- >>> sql/release.sql
-- release(job, token, reason) → void; the holder hands the job back unharmed.
--
-- Contract
--   * Queued again at its old place; the attempt does not count.
--   * A cancel request that came first wins: cancelled.
-- Locks     the job, its lease.
-- Notifies  moonmind_queue
-- Events    released, or cancelled.
-- Errors    MQ001, MQ002
create or replace function moonmind_queue.release(p_job_id bigint, p_token bigint, p_reason text default null)
returns void
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_lease  constant lease := _lock_lease(p_job_id, p_token);
    v_run_at timestamptz;
begin
    if v_lease.cancel_requested_at is not null then
        perform _end(p_job_id, 'cancelled', v_lease.cancel_reason, 'cancelled', 'warn', v_lease.worker);
        return;
    end if;
    update job set attempt = attempt - 1 where id = p_job_id returning run_at into v_run_at;
    perform _log(p_job_id, 'released', p_reason, p_worker => v_lease.worker);
    perform _queue(p_job_id, v_run_at);
end;
$$;

comment on function moonmind_queue.release(bigint, bigint, text) is 'Hand a leased job back; the attempt does not count.';
-- <<<
-- >>> sql/renew.sql
-- renew(jobs, tokens, lease) → the leases that are still held, with their new end.
--
-- Contract
--   * jobs[i] is held with tokens[i]. A row that is missing is a lease that is lost.
--   * cancel_requested says that the holder should stop.
-- Locks     the leases, in job order; never a job, so a renewal waits for nobody's work.
-- Errors    22023 a lease not between 0 and a day, or lists of different length.
create or replace function moonmind_queue.renew(p_job_ids bigint[], p_tokens bigint[], p_lease interval)
returns table (job_id bigint, token bigint, expires_at timestamptz, cancel_requested boolean)
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
    v_until constant timestamptz := _now() + p_lease;
begin
    perform _check_lease('a worker', p_lease);
    if cardinality(p_job_ids) is distinct from cardinality(p_tokens) then
        raise exception 'renew needs a token for every job, not % for %', cardinality(p_tokens), cardinality(p_job_ids)
            using errcode = 'invalid_parameter_value';
    end if;
    return query
    with held as materialized (
        select given.job_id
        from (
            select * from unnest(p_job_ids, p_tokens) as given (job_id, token) order by given.job_id
        ) as given
        cross join lateral (
            select from lease where lease.job_id = given.job_id and lease.token = given.token for update
        ) as lease
    ),
    renewed as (
        update lease
        set expires_at = v_until
        where lease.job_id = any (array(select held.job_id from held))
        returning lease.job_id, lease.token, lease.expires_at, lease.cancel_requested_at
    )
    select job_id, token, expires_at, cancel_requested_at is not null from renewed order by job_id;
end;
$$;

comment on function moonmind_queue.renew(bigint[], bigint[], interval) is 'Extend all leases of a worker in one call.';
-- <<<
-- >>> sql/retry.sql
-- retry(job) → the job's state now.
--
-- Contract
--   * A final or blocked job runs again, its attempts counted anew; dependents of a succeeded one
--     that have not started wait for it again.
--   * A queued job that rests or is scheduled runs now, its attempts kept.
-- Locks     the job; its row in scheduled; dependents of a succeeded job in id order.
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
        else
            if v_job.state = 'succeeded' then
                perform _hold_dependents(p_job_id);
            end if;
            update job set attempt = 0, result = null where id = p_job_id;
    end case;
    perform _log(p_job_id, 'retried', format('was %s', v_job.state));
    return _queue(p_job_id, v_now);
end;
$$;

comment on function moonmind_queue.retry(bigint) is 'Let a final or blocked job run again, or a resting one now.';
-- <<<
-- >>> sql/see_worker.sql
-- see_worker(id, stopped) → void; the process is alive, or says that it ends.
create or replace function moonmind_queue.see_worker(p_id bigint, p_stopped boolean default false)
returns void
language sql
security definer
set search_path = moonmind_queue, pg_temp
as $$
    update worker
    set seen_at = _now(), stopped_at = case when p_stopped then _now() end
    where id = p_id;
$$;

comment on function moonmind_queue.see_worker(bigint, boolean) is 'Record that a worker process is alive, or that it ends.';
-- <<<
-- >>> sql/start.sql
-- start(job, token) → void; the holder begins to run the job.
--
-- Contract
--   * claimed becomes running; on a job that is running already nothing happens.
-- Locks     the job, its lease.
-- Events    started
-- Errors    MQ001, MQ002
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
        perform _log(p_job_id, 'started', p_worker => v_lease.worker);
    end if;
end;
$$;

comment on function moonmind_queue.start(bigint, bigint) is 'Say that a claimed job is running.';
-- <<<
-- >>> sql/unlock.sql
-- unlock(job, force) → the job's state now; takes a lease away.
--
-- Contract
--   * Refused while the worker that holds the job is alive, unless forced: the token then keeps
--     the late worker out. The job is queued at once, or cancelled if asked for. The attempt
--     counts; was it the last one, then unlocking grants one more.
-- Locks     the job, its lease.
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
       ) as after
from moonmind_queue.job
left join moonmind_queue.lane on lane.id = job.lane_id
left join moonmind_queue.lease on lease.job_id = job.id;

comment on view moonmind_queue.job_overview is 'Every job with its lease and its dependencies.';

create or replace view moonmind_queue.job_history as
select event.job_id, event.seq, event.at, event.type, event.level, event.message, event.worker,
       event.data, job.agent, job.kind, job.name, job.key
from moonmind_queue.event
join moonmind_queue.job on job.id = event.job_id;

comment on view moonmind_queue.job_history is 'What happened, event by event; order by job_id, seq or by at.';

create or replace view moonmind_queue.job_artifact as
select id, job_id, attempt, name, content_type, size_bytes, sha256, created_at
from moonmind_queue.artifact
where sealed_at is not null;

comment on view moonmind_queue.job_artifact is 'The artifacts that are complete; their bytes are in artifact_content.';

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
       started_at, seen_at, stopped_at
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
    join moonmind_queue.job needed on needed.id = dependency.needs_job_id and needed.state <> 'succeeded'
    where job.state = 'waiting'
    union all
    select * from (  -- one way to each need, not all of them: their number doubles with every step
        select distinct on (step.job_id, needed.id)
               step.job_id, needed.id, needed.state::text, needed.error, step.depth + 1,
               format('%s: it needs job %s, which is %s', step.reason, needed.id, needed.state)
        from step
        join moonmind_queue.dependency on dependency.job_id = step.needs_job_id
        join moonmind_queue.job needed on needed.id = dependency.needs_job_id and needed.state <> 'succeeded'
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

-- Views call the clock with the rights of whoever reads them.
grant execute on function moonmind_queue._now()
to moonmind_producer, moonmind_worker, moonmind_operator, moonmind_reader;

grant select on
    moonmind_queue.job_overview, moonmind_queue.job_history, moonmind_queue.job_artifact,
    moonmind_queue.artifact_content, moonmind_queue.worker_overview, moonmind_queue.queue_status,
    moonmind_queue.blocked_job
to moonmind_producer, moonmind_worker, moonmind_operator, moonmind_reader;

grant execute on function
    moonmind_queue.enqueue(text, jsonb, text, text, text, integer, timestamptz, bigint[], integer, text[]),
    moonmind_queue.enqueue_many(jsonb)
to moonmind_producer, moonmind_operator;

grant execute on function
    moonmind_queue.claim(text, text[], text[], text[], integer, interval, boolean),
    moonmind_queue.start(bigint, bigint),
    moonmind_queue.renew(bigint[], bigint[], interval),
    moonmind_queue.complete(bigint, bigint, jsonb),
    moonmind_queue.complete_many(bigint[], bigint[], jsonb[]),
    moonmind_queue.fail(bigint, bigint, text, text, interval),
    moonmind_queue.release(bigint, bigint, text),
    moonmind_queue.append_event(bigint, bigint, text, text, text, jsonb),
    moonmind_queue.put_artifact(bigint, bigint, text, bytea, text, text),
    moonmind_queue.open_artifact(bigint, bigint, text, text, bigint, text),
    moonmind_queue.append_artifact(bigint, bigint, bytea),
    moonmind_queue.next_due(text[], text[], text[]),
    moonmind_queue.register_worker(text, text[], text[], text[], integer, text, integer, text),
    moonmind_queue.see_worker(bigint, boolean)
to moonmind_worker;

grant execute on function moonmind_queue.reclaim(integer) to moonmind_worker, moonmind_operator;

grant execute on function
    moonmind_queue.cancel(bigint, text),
    moonmind_queue.retry(bigint),
    moonmind_queue.unlock(bigint, boolean),
    moonmind_queue.prune(interval, integer)
to moonmind_operator;
-- <<<
