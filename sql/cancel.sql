-- cancel(job, reason) → the job's state now.
--
-- Contract
--   * Not leased: cancelled at once. Leased: the request is recorded and wins over everything but
--     a completion that came first; the holder hears of it at once, and at its next renewal.
--   * A second request changes nothing, and so does one for a cancelled job.
-- Locks     the job; its row in ready or scheduled, or its lease; its dependents, in id order.
--           Waits for them: never "not found".
-- Notifies  moonmind_queue_control with the worker's name.
-- Events    cancelled or cancel_requested
-- Errors    22023 reason above 64 KiB; MQ002; MQ003 when the job ended otherwise.
create or replace function moonmind_queue.cancel(p_job_id bigint, p_reason text default null)
returns text
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_job    constant job := _lock_job(p_job_id);
    v_reason constant text := coalesce(p_reason, 'cancelled by ' || session_user);
    v_worker text;
begin
    perform _check_text('reason', p_reason);
    case v_job.state
        when 'cancelled' then
            null;
        when 'succeeded', 'failed', 'dead_letter' then
            raise exception 'job % has ended already: it is %', p_job_id, v_job.state using errcode = 'MQ003';
        when 'claimed', 'running' then
            update lease
            set cancel_requested_at = _now(), cancel_reason = v_reason
            where job_id = p_job_id and cancel_requested_at is null
            returning worker into v_worker;
            if found then
                perform _log(p_job_id, 'cancel_requested', v_reason, 'warn');
                perform pg_notify('moonmind_queue_control', v_worker);
            end if;
        else
            if v_job.state = 'queued' then
                perform _withdraw(v_job);
            end if;
            return _end(p_job_id, 'cancelled', v_reason, 'cancelled', 'warn');
    end case;
    return v_job.state;
end;
$$;

comment on function moonmind_queue.cancel(bigint, text) is 'Cancel a job, or ask its worker to stop.';
