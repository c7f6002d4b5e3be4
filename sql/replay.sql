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
