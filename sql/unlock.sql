-- unlock(job, force) → the job's state now; takes a lease away.
--
-- Contract
--   * Refused while the worker that holds the job is alive, unless forced: the token then keeps
--     the late worker out. The job is queued at once, or cancelled if asked for. The attempt
--     counts; was it the last one, then unlocking grants one more.
-- Locks     the job, its lease; dependents of a job that is cancelled, in id order.
-- Notifies  moonmind_queue; moonmind_queue_control with the worker's name.
-- Events    unlocked, then cancelled where it applies.
-- Errors    MQ002; MQ003 when the job is not leased or its worker is alive.
create or replace function moonmind_queue.unlock(p_job_id bigint, p_force boolean default false)
returns text
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_job   constant job := _lock_job(p_job_id);
    v_lease lease;
begin
    select * into v_lease from lease where job_id = p_job_id for update;
    if not found then
        raise exception 'job % is not leased: it is %', p_job_id, v_job.state using errcode = 'MQ003';
    end if;
    if not coalesce(p_force, false) and exists (
        select from worker_overview where worker = v_lease.worker and status = 'live'
    ) then
        raise exception 'job % is held by %, which is alive; unlock it by force to take it away', p_job_id, v_lease.worker
            using errcode = 'MQ003';
    end if;

    perform _log(p_job_id, 'unlocked', format('taken from %s', v_lease.worker), 'warn',
                 p_data => jsonb_build_object('forced', p_force));
    perform pg_notify('moonmind_queue_control', v_lease.worker);
    if v_lease.cancel_requested_at is not null then
        return _end(p_job_id, 'cancelled', v_lease.cancel_reason, 'cancelled', 'warn');
    end if;
    return _queue(p_job_id, _now());
end;
$$;

comment on function moonmind_queue.unlock(bigint, boolean) is 'Take a lease away from a worker that is gone.';
