-- _offer(jobs) → void; lets workers see those of the jobs that are queued.
--
-- Contract
--   * A job whose run_at has come goes to ready, another to scheduled.
--   * The one place that makes a job claimable, and so the one that wakes workers.
-- Notifies  moonmind_queue, once per agent; PostgreSQL folds equal ones of a transaction.
create or replace function moonmind_queue._offer(p_job_ids bigint[])
returns void
language plpgsql
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
    v_now   constant timestamptz := _now();
    v_agent text;
begin
    insert into ready (lane_id, priority, run_at, job_id)
    select lane_id, priority, run_at, id
    from job
    where id = any (p_job_ids) and state = 'queued' and run_at <= v_now;

    insert into scheduled (lane_id, priority, run_at, job_id)
    select lane_id, priority, run_at, id
    from job
    where id = any (p_job_ids) and state = 'queued' and run_at > v_now;

    for v_agent in select distinct agent from job where id = any (p_job_ids) and state = 'queued'
    loop
        perform pg_notify('moonmind_queue', v_agent);
    end loop;
end;
$$;

comment on function moonmind_queue._offer(bigint[]) is 'Make queued jobs claimable and wake workers.';
