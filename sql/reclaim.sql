-- reclaim(limit) → the jobs taken back or cancelled, and their new state.
--
-- Contract
--   * A lease that has run out: queued again with a rest, dead_letter when attempts are used up,
--     or cancelled if asked for. An attempt that took longer than its timeout ends the same way,
--     also while its worker still renews.
--   * The first lost lease of a job rests 1 s, for its worker died and not the job; each further
--     one, and one that timed out, rests like a failure.
--   * Jobs whose expires_at has come are cancelled.
--   * Nothing of an agent that an operator paused is touched.
--   * Anybody may call it at any time; workers do when something is due. While another session keeps
--     dead rows from being cleaned up, one that calls it often may be up to 30 s late.
-- Locks     the jobs in id order, their leases and dependents, skip locked.
-- Notifies  moonmind_queue; moonmind_queue_control with the worker's name.
-- Events    expired or timed_out, then dead_lettered or cancelled where it applies.
-- Errors    22023 a limit below 1.
create or replace function moonmind_queue.reclaim(p_limit integer default 100)
returns table (job_id bigint, state text)
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set enable_hashjoin = off
set max_parallel_workers_per_gather = 0
set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
    v_now   constant timestamptz := _now();
    v_found integer := 0;
    v_lost  record;
begin
    if coalesce(p_limit, 0) < 1 then
        raise exception 'reclaim needs a limit of at least 1, not %', p_limit
            using errcode = 'invalid_parameter_value';
    end if;
    if _leases_again(v_now) is null then
        for v_lost in
            with expired as materialized (
                select job_id from lease where expires_at <= v_now
            )
            select mine.id
            from (select job_id from expired order by job_id) as lost
            cross join lateral (  -- a fence: from each lease to its job, whatever statistics say
                select job.id
                from job
                join lease on lease.job_id = job.id
                where job.id = lost.job_id and lease.expires_at <= v_now and not _is_paused(job.agent, 'operator')
                for update of job, lease skip locked
            ) as mine
            limit p_limit
        loop
            v_found := v_found + 1;
            state := _take_back(v_lost.id);
            if state is not null then
                job_id := v_lost.id;
                return next;
            end if;
        end loop;
        if v_found < p_limit then
            perform _rest_from_leases(v_now);
        end if;
    end if;
    return query select * from _expire_due(p_limit);
end;
$$;

comment on function moonmind_queue.reclaim(integer) is 'Take jobs back whose lease ran out.';
