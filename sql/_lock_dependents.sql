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
