-- _lock_ends(jobs) → whether others depend on them; locks leased jobs that are to end well, and those.
--
-- Contract
--   * One order for all of them: a dependent of one job may stand before another of the jobs.
-- Locks     the jobs and their dependents, in one id order.
-- Errors    40001 see _lock_late().
create or replace function moonmind_queue._lock_ends(p_job_ids bigint[])
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
    v_held bigint[];
    v_more bigint[];
begin
    select array_agg(id) into v_held
    from (
        select id
        from job
        where id = any (p_job_ids || array(select job_id from dependency where needs_job_id = any (p_job_ids)))
        order by id
        for update
    ) as locked;
    -- From here on nobody can come to depend on them: that takes a lock of theirs.
    if not exists (select from dependency where needs_job_id = any (p_job_ids)) then
        return false;
    end if;
    loop
        v_more := array(
            select unnest(_dependents(p_job_ids, array(
                select job_id from lease where job_id = any (p_job_ids) and cancel_requested_at is not null
            )))
            except
            select unnest(v_held)
        );
        exit when v_more = '{}';
        perform _lock_late(v_more, v_held);
        v_held := v_held || v_more;
    end loop;
    return true;
end;
$$;

comment on function moonmind_queue._lock_ends(bigint[]) is 'Lock jobs that are to end, with their dependents.';
