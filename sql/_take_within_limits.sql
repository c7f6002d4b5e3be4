-- _take_within_limits(lanes, limit, now) → as _take(), and no limit is exceeded however many claim at once.
--
-- Contract
--   * One job at a time: the lane with the most urgent head, the scopes that count it locked, the
--     room counted under these locks. A scope that another claim has locked is passed over.
-- Locks     an advisory lock for each scope, until the transaction ends; then as _take().
-- Errors    25000 not read committed: the count would be that of a moment before the locks.
create or replace function moonmind_queue._take_within_limits(p_lanes integer[], p_limit integer, p_now timestamptz)
returns bigint[]
language plpgsql
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set enable_hashjoin = off
set max_parallel_workers_per_gather = 0
set enable_mergejoin = off
as $$
declare
    v_taken bigint[]  := '{}';
    v_more  bigint[];
    v_open  integer[] := _with_room(p_lanes);
    v_lane  integer;
begin
    while cardinality(v_taken) < p_limit loop
        select head.lane_id into v_lane
        from unnest(v_open) as lane (id)
        cross join lateral (
            select r.lane_id, r.rank, r.job_id
            from ready r
            cross join lateral (  -- a fence: from each head to its job, whatever statistics say
                select from job where id = r.job_id and (expires_at is null or expires_at > p_now) offset 0
            ) as live
            where r.lane_id = lane.id
            order by r.rank, r.job_id
            limit 1
        ) as head
        order by head.rank, head.job_id
        limit 1;
        exit when not found;

        v_more := case when _lock_room(v_lane, v_taken) then (_take(array[v_lane], 1, p_now)).job_ids else '{}' end;
        v_taken := v_taken || v_more;
        if v_more = '{}' then
            v_open := array_remove(v_open, v_lane);
        end if;
    end loop;
    return v_taken;
end;
$$;

comment on function moonmind_queue._take_within_limits(integer[], integer, timestamptz)
is 'Lock the most urgent claimable jobs, as many as the limits allow.';
