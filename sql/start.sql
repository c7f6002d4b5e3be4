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
