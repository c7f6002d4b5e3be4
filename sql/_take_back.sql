-- _take_back(job) → its new state; null where dependents are locked and the next reclaim() must do it.
--
-- Locks     the job and its lease are locked by the caller; its dependents, skip locked.
-- Notifies  moonmind_queue; moonmind_queue_control with the worker's name.
-- Events    expired or timed_out, then dead_lettered or cancelled where it applies.
create or replace function moonmind_queue._take_back(p_job_id bigint)
returns text
language plpgsql
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_now       constant timestamptz := _now();
    v_job       job;
    v_lease     lease;
    v_timed_out boolean;
    v_reason    text;
begin
    select * into v_job from job where id = p_job_id;
    select * into v_lease from lease where job_id = p_job_id;
    if (v_lease.cancel_requested_at is not null or v_job.attempt >= v_job.max_attempts or v_job.expires_at is not null)
        and not _lock_dependents(p_job_id, false)
    then
        return null;
    end if;
    v_timed_out := v_lease.deadline_at <= v_now;
    v_reason := case
        when v_timed_out then format('attempt %s took longer than its timeout', v_job.attempt)
        else format('the lease of %s ran out', v_lease.worker)
    end;

    perform _log(p_job_id, case when v_timed_out then 'timed_out' else 'expired' end, v_reason, 'warn', v_lease.worker,
                 jsonb_build_object('attempt', v_job.attempt, 'expired_at', v_lease.expires_at));
    perform pg_notify('moonmind_queue_control', v_lease.worker);
    if v_lease.cancel_requested_at is not null then
        return _end(p_job_id, 'cancelled', v_lease.cancel_reason, 'cancelled', 'warn');
    elsif v_job.attempt >= v_job.max_attempts then
        return _end(p_job_id, 'dead_letter', v_reason || format(', the last of %s', v_job.max_attempts),
                    'dead_lettered', 'error', p_data => jsonb_build_object('attempts', v_job.attempt));
    end if;
    update job set error = v_reason where id = p_job_id;
    return _queue(p_job_id, v_now + case
        when not v_timed_out and _lost_leases(p_job_id) <= 1 then interval '1 s'
        else _backoff(v_job.kind, v_job.attempt)
    end);
end;
$$;

comment on function moonmind_queue._take_back(bigint) is 'End a lease that ran out.';
