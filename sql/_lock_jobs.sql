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
