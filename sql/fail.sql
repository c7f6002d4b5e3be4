-- fail(job, token, error, outcome, retry_in, source) → the job's new state.
--
-- Contract
--   * outcome retry: queued again after retry_in, or the back-off of its kind; dead_letter when
--     its attempts are used up. block: blocked until a person acts. fail: failed for good.
--   * With a source, such as codex, the rules for failures are asked first what the error means:
--     what they say of outcome and rest goes before outcome and retry_in. They may also let the
--     agent rest (the attempt does not count then), or pause it until a person resumes it.
--   * A cancel request that came first wins: cancelled.
-- Locks     the job, its lease; dependents of a job that ends, in id order; the agent's row in pause.
-- Notifies  moonmind_queue
-- Events    failed, then dead_lettered where it applies; or blocked; or cancelled.
-- Errors    MQ001, MQ002, MQ004; 22023 unknown outcome, retry_in not between 0 and a year, error above 64 KiB.
create or replace function moonmind_queue.fail(
    p_job_id   bigint,
    p_token    bigint,
    p_error    text,
    p_outcome  text     default 'retry',
    p_retry_in interval default null,
    p_source   text     default null
)
returns text
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_lease constant lease := _lock_lease(p_job_id, p_token);
    v_rule  constant failure_rule := case when p_source is not null then _classify(p_source, p_error) end;
    v_error constant text := p_error || case when v_rule.advice <> '' then ' (' || v_rule.advice || ')' else '' end;
    v_class constant jsonb := case when v_rule.name is null then '{}' else jsonb_build_object('class', v_rule.name) end;
    v_outcome text := coalesce(v_rule.outcome, p_outcome, '');
    v_rest    interval := coalesce(case when v_rule.name is not null then _rest_in(p_error) end, v_rule.rest, p_retry_in);
    v_job     job;
begin
    if v_outcome not in ('retry', 'block', 'fail', 'cool_down') or v_rule.name is null and v_outcome = 'cool_down'
        or p_retry_in not between interval '0' and interval '1 year'
    then
        raise exception 'fail needs an outcome of retry, block or fail and a rest between 0 and a year, not % and %', left(p_outcome, 100), p_retry_in
            using errcode = 'invalid_parameter_value';
    end if;
    perform _check_text('error', p_error);
    if v_lease.cancel_requested_at is not null then
        return _end(p_job_id, 'cancelled', v_lease.cancel_reason, 'cancelled', 'warn', v_lease.worker,
                    jsonb_build_object('error', p_error));
    end if;
    if v_rule.pauses then
        select * into v_job from job where id = p_job_id;
        perform _pause(v_job.agent, 'cooldown', v_error, null, v_lease.worker);
    end if;
    if v_outcome = 'retry' and _failures_like(p_job_id, v_rule.name) + 1 >= v_rule.most then
        v_outcome := 'fail';
    end if;
    case v_outcome
        when 'cool_down' then
            perform cool_down(p_job_id, p_token, v_rest, v_error);
            select state into v_outcome from job where id = p_job_id;
            return v_outcome;
        when 'block' then
            return _end(p_job_id, 'blocked', v_error, 'blocked', 'warn', v_lease.worker, nullif(v_class, '{}'));
        when 'fail' then
            return _end(p_job_id, 'failed', v_error, 'failed', 'error', v_lease.worker,
                        jsonb_build_object('attempt', v_lease.attempt) || v_class);
        else null;
    end case;

    update job set error = v_error where id = p_job_id returning * into v_job;
    if v_job.attempt >= v_job.max_attempts then
        perform _log(p_job_id, 'failed', v_error, 'error', v_lease.worker,
                     jsonb_build_object('attempt', v_lease.attempt) || v_class);
        return _end(p_job_id, 'dead_letter', v_error, 'dead_lettered', 'error', v_lease.worker,
                    jsonb_build_object('attempts', v_job.attempt));
    end if;
    v_rest := coalesce(v_rest, _backoff(v_job.kind, v_job.attempt));
    perform _log(p_job_id, 'failed', v_error, 'warn', v_lease.worker,
                 jsonb_build_object('attempt', v_lease.attempt, 'retry_at', _now() + v_rest) || v_class);
    return _queue(p_job_id, _now() + v_rest);
end;
$$;

comment on function moonmind_queue.fail(bigint, bigint, text, text, interval, text) is 'End an attempt badly; retry, block or fail the job.';
