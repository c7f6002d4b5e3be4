-- next_due(agents, kinds, capabilities, horizon) → how long such a worker may sleep, and the horizon to ask with next.
--
-- Contract
--   * due is 0 when there is something to claim, to take back, to resume or to schedule now; else how long until
--     time alone brings that; null when there is nothing that time could bring.
--   * Changes no row: an idle worker asks this at each poll, and claims when it is told to or notified.
--   * While another session keeps dead rows from being cleaned up, due may be when this session is
--     to look at all of them again, within 30 s.
--   * Whoever has just called doze() asks with horizon 0. A horizon in the answer says that
--     transactions were under way that may not have seen the sleeper: ask again soon, with it,
--     until it is null. From then on every job is either seen here or notified.
--   * The horizon is a transaction id taken for this: it is above all that were given out, which
--     the end of a snapshot is not.
create or replace function moonmind_queue.next_due(
    p_agents       text[] default null,
    p_kinds        text[] default null,
    p_capabilities text[] default '{}',
    p_horizon      bigint default null
)
returns table (due interval, horizon bigint)
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set enable_hashjoin = off
set max_parallel_workers_per_gather = 0
set enable_mergejoin = off
as $$
declare
    v_now   constant timestamptz := _now();
    v_floor constant record := _floor(v_now);
    v_above constant jsonb  := case when v_floor.dear then v_floor.above end;
    v_again constant timestamptz := _leases_again(v_now);
    v_lanes integer[];
    v_lease timestamptz := v_again;
    v_due   timestamptz;
begin
    -- First of all: what commits between this and a look further down is seen by that look.
    horizon := case when p_horizon = 0 then pg_current_xact_id()::text::bigint else p_horizon end;
    if pg_snapshot_xmin(pg_current_snapshot())::text::bigint >= horizon then
        horizon := null;
    end if;
    v_lanes := _open_lanes(p_agents, p_kinds, p_capabilities, _policy());
    if exists (select from run_limit) then
        v_lanes := _with_room(v_lanes);
    end if;
    if exists (
        select from unnest(v_lanes) as lane (id)
        cross join lateral (
            select from ready
            where lane_id = lane.id and rank >= coalesce((v_above ->> lane.id::text)::bigint, -9223372036854775808)
            limit 1
        ) as head
    ) then
        due := interval '0';
        return next;
        return;
    end if;
    if v_again is null then
        select min(lease.expires_at) into v_lease
        from lease
        where not (exists (select from pause) and (
            select _is_paused(lane.agent, 'operator') from lane where lane.id = lease.lane_id
        ));
        if v_lease <= v_now is not true then
            perform _rest_from_leases(v_now);
        end if;
    end if;
    select least(
        (
            select min(first.run_at)
            from unnest(v_lanes) as lane (id)
            cross join lateral (
                select run_at from scheduled where lane_id = lane.id order by run_at limit 1
            ) as first
        ),
        v_lease,
        (
            select expiry.expires_at
            from expiry
            cross join lateral (  -- a fence: from each time to its job, whatever statistics say
                select from job where id = expiry.job_id and not _is_paused(agent, 'operator') offset 0
            ) as live
            order by expiry.expires_at limit 1
        ),
        (
            select min(until) from pause
            where until > v_now and (p_agents is null or agent = '*' or agent = any (p_agents))
        ),
        (select min(until) from spent_budget where until > v_now),
        case when v_floor.dear then v_floor.until end,  -- when a claim looks at everything again
        (select min(due_at) from schedule)
    ) into v_due;
    due := case when v_due is not null then greatest(v_due - v_now, interval '0') end;
    return next;
end;
$$;

comment on function moonmind_queue.next_due(text[], text[], text[], bigint) is 'The sleep of an idle worker.';
