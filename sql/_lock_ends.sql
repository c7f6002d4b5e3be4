-- _lock_ends(jobs) → void; locks leased jobs that are to end well, and all that this concerns.
--
-- Contract
--   * One order for all of them: a dependent of one job may stand before another of the jobs. A
--     dependent that came while we waited is out of order: then all locks are given back and
--     taken anew. With one job that cannot happen, for what needs it has a higher id.
-- Locks     the jobs and their dependents, in one id order.
create or replace function moonmind_queue._lock_ends(p_job_ids bigint[])
returns void
language plpgsql
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
    v_failed bigint[];
    v_jobs   bigint[];
begin
    if cardinality(p_job_ids) = 1 then
        perform from job where id = p_job_ids[1] for update;
        if exists (select from dependency where needs_job_id = p_job_ids[1]) then
            perform _lock_jobs(_dependents(p_job_ids), true);
        end if;
        return;
    end if;
    loop
        v_failed := array(select job_id from lease where job_id = any (p_job_ids) and cancel_requested_at is not null);
        v_jobs := p_job_ids || _dependents(p_job_ids, v_failed);
        begin
            perform _lock_jobs(v_jobs, true);
            v_failed := array(select job_id from lease where job_id = any (p_job_ids) and cancel_requested_at is not null);
            if _dependents(p_job_ids, v_failed) <@ v_jobs then
                return;
            end if;
            raise exception 'once more' using errcode = 'MQAGN';
        exception when sqlstate 'MQAGN' then
            null;
        end;
    end loop;
end;
$$;

comment on function moonmind_queue._lock_ends(bigint[]) is 'Lock jobs that are to end, with their dependents.';
