-- reclaim(limit) → the jobs whose leases had run out, and their new state.
--
-- Contract
--   * Queued again with a rest, dead_letter when attempts are used up, or cancelled if asked for.
--   * The first lost lease of a job rests 1 s, for its worker died and not the job; each further
--     one rests like a failure, so a job that kills its workers cannot run them down.
--   * Anybody may call it at any time; workers do on a timer.
-- Locks     the jobs in id order and their leases, skip locked.
-- Notifies  moonmind_queue
-- Events    expired, then dead_lettered or cancelled where it applies.
create or replace function moonmind_queue.reclaim(p_limit integer default 100)
returns table (job_id bigint, state text)
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
#variable_conflict use_column
declare
    v_now  constant timestamptz := _now();
    v_lost record;
begin
    for v_lost in
        select job.id, job.kind, job.attempt, job.max_attempts, lease.worker, lease.token,
               lease.expires_at, lease.cancel_requested_at, lease.cancel_reason
        from lease
        join job on job.id = lease.job_id
        where lease.expires_at <= v_now
        order by lease.job_id
        limit p_limit
        for update of job, lease skip locked
    loop
        job_id := v_lost.id;
        perform _log(v_lost.id, 'expired', format('the lease of %s ran out', v_lost.worker), 'warn', v_lost.worker,
                     jsonb_build_object('attempt', v_lost.attempt, 'expired_at', v_lost.expires_at));
        if v_lost.cancel_requested_at is not null then
            state := _end(v_lost.id, 'cancelled', v_lost.cancel_reason, 'cancelled', 'warn');
        elsif v_lost.attempt >= v_lost.max_attempts then
            state := _end(v_lost.id, 'dead_letter',
                          format('the lease of %s ran out in the last of %s attempts', v_lost.worker, v_lost.max_attempts),
                          'dead_lettered', 'error', p_data => jsonb_build_object('attempts', v_lost.attempt));
        else
            update job set error = format('the lease of %s ran out', v_lost.worker) where id = v_lost.id;
            state := _queue(v_lost.id, v_now + case
                when _lost_leases(v_lost.id) <= 1 then interval '1 s'
                else _backoff(v_lost.kind, v_lost.attempt)
            end);
        end if;
        return next;
    end loop;
end;
$$;

comment on function moonmind_queue.reclaim(integer) is 'Take jobs back whose lease ran out.';
