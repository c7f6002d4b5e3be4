-- _offer(jobs) → void; lets workers see those of the jobs that are queued.
--
-- Contract
--   * A job whose run_at has come goes to ready, another to scheduled.
--   * The one place that makes a job claimable, and so the one that wakes workers.
-- Notifies  moonmind_queue, of agents that somebody sleeps for.
create or replace function moonmind_queue._offer(p_job_ids bigint[])
returns void
language plpgsql
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_now   constant timestamptz := _now();
    v_ready bigint;
begin
    insert into ready (lane_id, rank, job_id)
    select lane_id, rank, id
    from job
    where id = any (p_job_ids) and state = 'queued' and run_at <= v_now;
    get diagnostics v_ready = row_count;

    if v_ready < cardinality(p_job_ids) then
        insert into scheduled (lane_id, run_at, rank, job_id)
        select lane_id, run_at, rank, id
        from job
        where id = any (p_job_ids) and state = 'queued' and run_at > v_now;
    end if;

    perform _ring(array(
        select distinct agent from job where id = any (p_job_ids) and state = 'queued'
    ));
end;
$$;

comment on function moonmind_queue._offer(bigint[]) is 'Make queued jobs claimable and wake workers.';
