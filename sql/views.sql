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
