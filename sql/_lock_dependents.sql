-- _lock_dependents(job, wait) → whether all jobs are locked that change when this one fails.
--
-- Contract
--   * A job that came to depend on one of them while we waited would be locked out of order: then
--     all locks are given back and taken anew, together with it.
--   * Without wait there is one try, and the answer says whether it got them all.
-- Locks     the job is locked by the caller; the dependents, in id order.
create or replace function moonmind_queue._lock_dependents(p_job_id bigint, p_wait boolean default true)
returns boolean
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_jobs bigint[];
begin
    loop
        v_jobs := _dependents('{}', array[p_job_id]);
        if v_jobs = '{}' then
            return true;
        elsif not p_wait then
            return _lock_jobs(v_jobs, false) and _dependents('{}', array[p_job_id]) <@ v_jobs;
        end if;
        begin
            perform _lock_jobs(v_jobs, true);
            if _dependents('{}', array[p_job_id]) <@ v_jobs then
                return true;
            end if;
            raise exception 'once more' using errcode = 'MQAGN';
        exception when sqlstate 'MQAGN' then
            null;
        end;
    end loop;
end;
$$;

comment on function moonmind_queue._lock_dependents(bigint, boolean) is 'Lock the jobs that the failure of one concerns.';
