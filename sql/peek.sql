-- peek(agents, kinds, capabilities, limit, job_ids) → the ids of jobs that a claim would take now, most urgent first.
--
-- Contract
--   * What is asked for, and who asks, decide as in claim(); with job_ids only of these.
--   * Each could be claimed by itself: of several that share a limit a claim takes as many as it
--     leaves room for.
--   * Reads only: no job is locked, and another may take it before you do.
-- Errors    22023 limit below 1; MQ004 agents or kinds that the login's policy does not admit.
create or replace function moonmind_queue.peek(
    p_agents       text[]   default null,
    p_kinds        text[]   default null,
    p_capabilities text[]   default '{}',
    p_limit        integer  default 1,
    p_job_ids      bigint[] default null
)
returns setof bigint
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set enable_hashjoin = off
set max_parallel_workers_per_gather = 0
set enable_mergejoin = off
set enable_bitmapscan = off
as $$
declare
    v_now   constant timestamptz := _now();
    v_lanes integer[];
begin
    if coalesce(p_limit, 0) < 1 then
        raise exception 'peek needs a limit of at least 1, not %', p_limit
            using errcode = 'invalid_parameter_value';
    end if;
    v_lanes := _open_lanes(p_agents, p_kinds, p_capabilities, _policy());
    if exists (select from run_limit) then
        v_lanes := _with_room(v_lanes);
    end if;

    if p_job_ids is not null then
        return query
        select id
        from job
        where id = any (p_job_ids)
          and state = 'queued'
          and lane_id = any (v_lanes)
          and run_at <= v_now
          and (expires_at is null or expires_at > v_now)
        order by rank, id
        limit p_limit;
        return;
    end if;

    return query
    select head.job_id
    from unnest(v_lanes) as lane (id)
    cross join lateral (
        (
            select r.rank, r.job_id
            from ready r
            cross join lateral (  -- a fence: from each head to its job, whatever statistics say
                select from job where id = r.job_id and (expires_at is null or expires_at > v_now) offset 0
            ) as live
            where r.lane_id = lane.id
            order by r.rank, r.job_id
            limit p_limit
        )
        union all
        (  -- what a claim would move to ready first
            select s.rank, s.job_id
            from scheduled s
            cross join lateral (
                select from job where id = s.job_id and (expires_at is null or expires_at > v_now) offset 0
            ) as live
            where s.lane_id = lane.id and s.run_at <= v_now
            order by s.run_at
            limit 1000
        )
    ) as head
    order by head.rank, head.job_id
    limit p_limit;
end;
$$;

comment on function moonmind_queue.peek(text[], text[], text[], integer, bigint[])
is 'What a claim would take now, without taking it.';
