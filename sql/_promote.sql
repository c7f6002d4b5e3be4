-- _promote(lanes, now) → void; moves scheduled jobs of these lanes whose time has come to ready.
--
-- Contract
--   * At most 1,000 a lane and call, so that a claim stays quick; the rest follows with the next.
-- Locks     rows of scheduled, skip locked.
create or replace function moonmind_queue._promote(p_lanes integer[], p_now timestamptz)
returns void
language plpgsql
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set enable_hashjoin = off
set max_parallel_workers_per_gather = 0
set enable_mergejoin = off
as $$
begin
    with due as materialized (
        select due.*
        from unnest(p_lanes) as lane (id)
        cross join lateral (
            select s.lane_id, s.run_at, s.job_id
            from scheduled s
            where s.lane_id = lane.id and s.run_at <= p_now
            order by s.run_at, s.job_id
            limit 1000
            for update skip locked
        ) as due
    ),
    moved as (
        delete from scheduled
        using due
        where (scheduled.lane_id, scheduled.run_at, scheduled.job_id)
            = (due.lane_id, due.run_at, due.job_id)
        returning scheduled.*
    )
    insert into ready (lane_id, rank, job_id)
    select lane_id, rank, job_id from moved;
end;
$$;

comment on function moonmind_queue._promote(integer[], timestamptz) is 'Make scheduled jobs claimable whose time has come.';
