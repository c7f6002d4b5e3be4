-- _expire_due(limit) → the jobs that have become pointless, now cancelled.
--
-- Contract
--   * An attempt that is under way goes on; the job is cancelled should it come back.
--   * Jobs of a paused agent stay as they are.
-- Locks     the jobs and their dependents, skip locked.
-- Events    cancelled
create or replace function moonmind_queue._expire_due(p_limit integer)
returns table (job_id bigint, state text)
language plpgsql
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
    v_now constant timestamptz := _now();
    v_job job;
begin
    for v_job in
        with due as materialized (
            select job_id from expiry where expires_at <= v_now order by expires_at, job_id
        )
        select mine.*
        from due
        cross join lateral (  -- a fence: from each time to its job, whatever statistics say
            select * from job where id = due.job_id and not _is_paused(agent, 'operator')
            for update skip locked
        ) as mine
        limit p_limit
    loop
        select * into v_job from job where id = v_job.id;  -- one before it may have taken it along
        if v_job.state in ('waiting', 'queued', 'blocked') then
            continue when not _lock_dependents(v_job.id, false);
            if v_job.state = 'queued' then
                perform _withdraw(v_job);
            end if;
            job_id := v_job.id;
            state := _expire(v_job);
            return next;
        end if;
        delete from expiry where expires_at = v_job.expires_at and job_id = v_job.id;
    end loop;
end;
$$;

comment on function moonmind_queue._expire_due(integer) is 'Cancel jobs that have become pointless.';
