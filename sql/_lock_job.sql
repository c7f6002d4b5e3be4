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
