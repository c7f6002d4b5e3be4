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

create or replace view moonmind_queue.job_history as
select event.job_id, event.seq, event.at, event.type, event.level, event.message, event.worker,
       event.data, job.agent, job.kind, job.name, job.key, event.pos
from moonmind_queue.event
join moonmind_queue.job on job.id = event.job_id;

comment on view moonmind_queue.job_history is 'What happened, event by event; order by job_id, seq or by pos.';

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
       started_at, seen_at, stopped_at, versions, role::text as role
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
fit as (
    select lane.id,
           bool_or(coalesce(lane.agent = any (alive.agents), true)) as agent,
           bool_or(coalesce(lane.agent = any (alive.agents), true) and lane.kind = any (alive.kinds)) as kind,
           bool_or(coalesce(lane.agent = any (alive.agents), true) and lane.kind = any (alive.kinds)
                   and lane.capabilities <@ alive.capabilities) as capabilities,
           bool_or(coalesce(lane.agent = any (alive.agents), true) and lane.kind = any (alive.kinds)
                   and lane.capabilities <@ alive.capabilities
                   and ((alive.policy).role is null or moonmind_queue._permits(alive.policy, lane))) as policy
    from moonmind_queue.lane
    left join alive on true
    group by lane.id
)
select lane.agent, lane.kind, lane.capabilities, nullif(lane.repository, '') as repository,
       waiting.jobs, waiting.oldest_job_id,
       case
           when not fit.agent then format('no live worker serves agent %s', lane.agent)
           when not fit.kind then format('no live worker of agent %s runs kind %s', lane.agent, lane.kind)
           when not fit.capabilities
               then format('no live worker offers all of %s', array_to_string(lane.capabilities, ', '))
           else format('no policy of a live worker admits it')
       end as reason
from moonmind_queue.lane
join fit on fit.id = lane.id and not coalesce(fit.policy, false)
cross join lateral (
    select count(*) as jobs, min(job_id) as oldest_job_id from moonmind_queue.ready where ready.lane_id = lane.id
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
