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

create or replace view moonmind_queue.schedule_overview as
select name, cron, timezone, catch_up, paused, next_at, last_at, last_job_id, job, error, retry_at,
       created_at, updated_at
from moonmind_queue.schedule;

comment on view moonmind_queue.schedule_overview is 'Every schedule: when it comes next, and its latest job.';
