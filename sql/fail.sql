-- fail(job, token, error, outcome, retry_in) → the job's new state.
--
-- Contract
--   * outcome retry: queued again after retry_in, or the back-off of its kind; dead_letter when
--     its attempts are used up. block: blocked until a person acts. fail: failed for good.
--   * A cancel request that came first wins: cancelled.
-- Locks     the job, its lease; dependents of a job that ends, in id order.
-- Notifies  moonmind_queue
-- Events    failed, then dead_lettered where it applies; or blocked; or cancelled.
-- Errors    MQ001, MQ002, MQ004; 22023 unknown outcome, retry_in not between 0 and a year, error above 64 KiB.
create or replace function moonmind_queue.fail(
    p_job_id   bigint,
    p_token    bigint,
    p_error    text,
    p_outcome  text     default 'retry',
    p_retry_in interval default null
)
returns text
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_lease constant lease := _lock_lease(p_job_id, p_token);
    v_job   job;
    v_rest  interval;
begin
    if coalesce(p_outcome, '') not in ('retry', 'block', 'fail') or p_retry_in not between interval '0' and interval '1 year' then
        raise exception 'fail needs an outcome of retry, block or fail and a rest between 0 and a year, not % and %', left(p_outcome, 100), p_retry_in
            using errcode = 'invalid_parameter_value';
    end if;
    perform _check_text('error', p_error);
    if v_lease.cancel_requested_at is not null then
        return _end(p_job_id, 'cancelled', v_lease.cancel_reason, 'cancelled', 'warn', v_lease.worker,
                    jsonb_build_object('error', p_error));
    elsif p_outcome = 'block' then
        return _end(p_job_id, 'blocked', p_error, 'blocked', 'warn', v_lease.worker);
    elsif p_outcome = 'fail' then
        return _end(p_job_id, 'failed', p_error, 'failed', 'error', v_lease.worker,
                    jsonb_build_object('attempt', v_lease.attempt));
    end if;

    update job set error = p_error where id = p_job_id returning * into v_job;
    if v_job.attempt >= v_job.max_attempts then
        perform _log(p_job_id, 'failed', p_error, 'error', v_lease.worker,
                     jsonb_build_object('attempt', v_lease.attempt));
        return _end(p_job_id, 'dead_letter', p_error, 'dead_lettered', 'error', v_lease.worker,
                    jsonb_build_object('attempts', v_job.attempt));
    end if;
    v_rest := coalesce(p_retry_in, _backoff(v_job.kind, v_job.attempt));
    perform _log(p_job_id, 'failed', p_error, 'warn', v_lease.worker,
                 jsonb_build_object('attempt', v_lease.attempt, 'retry_at', _now() + v_rest));
    return _queue(p_job_id, _now() + v_rest);
end;
$$;

comment on function moonmind_queue.fail(bigint, bigint, text, text, interval) is 'End an attempt badly; retry, block or fail the job.';
