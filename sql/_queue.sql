-- _queue(job, run_at) → its new state: queued, waiting while a dependency is not met, or blocked.
--
-- Contract
--   * The one way back into the queue: after a failure, a lost lease, a release, a retry.
--   * A job that has become pointless meanwhile is cancelled instead.
--   * A job that has used up its own budget is blocked: another attempt would use more.
--   * Any lease is gone; the error stays until the job succeeds.
-- Locks     the job is locked by the caller.
create or replace function moonmind_queue._queue(p_job_id bigint, p_run_at timestamptz)
returns text
language plpgsql
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_now   constant timestamptz := _now();
    v_unmet constant integer := _unmet(p_job_id);
    v_job   job;
    v_spent text;
begin
    if exists (select from usage where job_id = p_job_id and not over) then
        v_spent := _overspent(p_job_id);
        if v_spent is not null then
            return _end(p_job_id, 'blocked', v_spent, 'blocked', 'warn');
        end if;
    end if;
    delete from lease where job_id = p_job_id;
    update job
    set unmet = v_unmet,
        state = case when v_unmet > 0 then 'waiting' else 'queued' end,
        run_at = p_run_at,
        rank = _rank(priority, p_run_at),
        finished_at = null,
        updated_at = v_now
    where id = p_job_id
    returning * into v_job;
    if v_job.expires_at <= v_now then
        return _expire(v_job);
    end if;
    if v_job.state = 'queued' then
        perform _offer(array[p_job_id]);
    end if;
    perform _make_room();
    return v_job.state;
end;
$$;

comment on function moonmind_queue._queue(bigint, timestamptz) is 'Put a locked job back into the queue, or park it.';
