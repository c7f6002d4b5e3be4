-- release(job, token, reason, rest) → void; the holder hands the job back unharmed.
--
-- Contract
--   * Queued again at its old place; the attempt does not count.
--   * With a rest it is not claimed before that has passed: what it needs is in use.
--   * A cancel request that came first wins: cancelled.
-- Locks     the job, its lease; dependents of a job that is cancelled, in id order.
-- Notifies  moonmind_queue
-- Events    released, or cancelled.
-- Errors    MQ001, MQ002, MQ004; 22023 rest not between 0 and a year, reason above 64 KiB.
create or replace function moonmind_queue.release(
    p_job_id bigint,
    p_token  bigint,
    p_reason text     default null,
    p_rest   interval default null
)
returns void
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_lease  constant lease := _lock_lease(p_job_id, p_token);
    v_run_at timestamptz;
begin
    if p_rest not between interval '0' and interval '1 year' then
        raise exception 'a job is handed back for between 0 and a year, not %', p_rest
            using errcode = 'invalid_parameter_value';
    end if;
    perform _check_text('reason', p_reason);
    if v_lease.cancel_requested_at is not null then
        perform _end(p_job_id, 'cancelled', v_lease.cancel_reason, 'cancelled', 'warn', v_lease.worker);
        return;
    end if;
    update job set attempt = attempt - 1 where id = p_job_id returning run_at into v_run_at;
    perform _log(p_job_id, 'released', p_reason, p_worker => v_lease.worker);
    perform _queue(p_job_id, greatest(v_run_at, _now() + p_rest));
end;
$$;

comment on function moonmind_queue.release(bigint, bigint, text, interval) is 'Hand a leased job back; the attempt does not count.';
