-- _retry(job, run_at) → its new state; a final or blocked job may run again, its attempts counted anew.
--
-- Contract
--   * Dependents that counted its end as met and have not started wait for it again.
--   * It begins from the start: steps of its publication that were done are not gone on from, and what it
--     has used so far no longer counts against its own budget.
--   * A time to expire that has passed no longer counts: whoever retries a job wants it to run.
-- Locks     the job is locked by the caller; its dependents, in id order.
-- Events    retried; waiting for dependents that were queued.
create or replace function moonmind_queue._retry(p_job moonmind_queue.job, p_run_at timestamptz)
returns text
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_pointless constant boolean := coalesce(p_job.expires_at <= _now(), false);
begin
    perform _hold_dependents(p_job);
    if v_pointless then  -- somebody wants it all the same
        delete from expiry where expires_at = p_job.expires_at and job_id = p_job.id;
    end if;
    update job
    set attempt = 0, result = null, expires_at = case when not v_pointless then expires_at end
    where id = p_job.id;
    update publication set over = true where job_id = p_job.id;
    update usage set over = true where job_id = p_job.id;
    perform _log(p_job.id, 'retried', format('was %s', p_job.state));
    return _queue(p_job.id, p_run_at);
end;
$$;

comment on function moonmind_queue._retry(moonmind_queue.job, timestamptz) is 'Let an ended or blocked job run again.';
