-- retry(job) → the job's state now.
--
-- Contract
--   * A final or blocked job runs again, its attempts counted anew; dependents that counted its
--     end as met and have not started wait for it again.
--   * A queued job that rests or is scheduled runs now, its attempts kept.
-- Locks     the job; its row in scheduled; its dependents in id order.
-- Notifies  moonmind_queue
-- Events    retried; waiting for dependents that were queued.
-- Errors    MQ002; MQ003 when the job is leased or waits for others.
create or replace function moonmind_queue.retry(p_job_id bigint)
returns text
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_now constant timestamptz := _now();
    v_job constant job := _lock_job(p_job_id);
begin
    case
        when v_job.state in ('claimed', 'running') then
            raise exception 'job % cannot be retried: it is %', p_job_id, v_job.state using errcode = 'MQ003';
        when v_job.state = 'waiting' then
            raise exception 'job % cannot be retried: it waits for % other job(s)', p_job_id, v_job.unmet using errcode = 'MQ003';
        when v_job.state = 'queued' and v_job.run_at <= v_now then
            return v_job.state;
        when v_job.state = 'queued' then
            perform _withdraw(v_job);
            perform _log(p_job_id, 'retried', format('was %s', v_job.state));
            return _queue(p_job_id, v_now);
        else
            return _retry(v_job, v_now);
    end case;
end;
$$;

comment on function moonmind_queue.retry(bigint) is 'Let a final or blocked job run again, or a resting one now.';
