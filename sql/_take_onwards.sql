-- _take_onwards(lanes, limit, now, many) → as _take(), going on where this session's last claim ended.
--
-- Contract
--   * For claims of many, and for all while a full look is dear: where another session keeps dead
--     rows from being cleaned up, it walks them all.
--   * What came below that meanwhile (a late commit, a retry, a higher priority, what another left)
--     is found by a full look: where there is too little above, or a second later. After a dear
--     look only so much later that looking takes a twentieth of the time, and within 30 seconds.
--   * Those who take many at once begin one behind the other, each a limit further down: what
--     another is about to take would have to be tried row by row.
--   * Where to go on is a setting of the session, and a hint: whoever uses the session next, as
--     behind a pooler, may follow it, for it holds of the lanes and not of a worker.
-- Locks     an advisory lock, the place in that order, until the transaction ends; then as _take().
create or replace function moonmind_queue._take_onwards(p_lanes integer[], p_limit integer, p_now timestamptz, p_many boolean)
returns bigint[]
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
declare
    c_places  constant integer  := 16;
    c_soonest constant interval := interval '1 s';
    v_hint  record  := _floor(p_now);
    v_above jsonb   := case when p_many or v_hint.dear then v_hint.above else '{}' end;
    v_place integer := 0;
    v_taken record;
    v_more  record;
    v_gone  bigint;
    v_ids   bigint[];
begin
    if p_many then
        select coalesce(min(place), c_places) into v_place
        from (
            select place
            from generate_series(0, c_places - 1) as place
            where pg_try_advisory_xact_lock(
                hashtextextended('moonmind_queue.claim', c_places * coalesce(p_lanes[1], 0)::bigint + place)
            )
            limit 1
        ) as free;
    end if;
    v_taken := _take(p_lanes, p_limit, p_now, v_above, v_place * p_limit);
    v_ids := v_taken.job_ids;
    v_gone := v_taken.gone;
    if cardinality(v_ids) < p_limit and (v_place > 0 or v_above <> '{}' and not v_hint.dear) then
        v_above := case when v_hint.dear then v_above else '{}' end;
        v_more := _take(p_lanes, p_limit - cardinality(v_ids), p_now, v_above);
        v_ids := v_ids || v_more.job_ids;
        v_gone := v_gone + v_more.gone;
    end if;
    if v_above = '{}' then  -- everything was looked at
        v_hint.dear := _rest_after(v_gone) is not null;
        v_hint.until := p_now + greatest(_rest_after(v_gone), c_soonest);
    end if;

    -- Too little: whatever comes now is to be found at once, unless that is dear.
    if v_hint.dear or p_many and cardinality(v_ids) = p_limit then
        perform _keep_floor(v_hint.above || v_taken.floor, v_hint.until, v_hint.dear);
    elsif p_many and v_above = '{}' or v_hint.above = '{}' then
        perform set_config('moonmind_queue.floor', '', false);
    end if;
    return v_ids;
end;
$$;

comment on function moonmind_queue._take_onwards(integer[], integer, timestamptz, boolean)
is 'Lock the most urgent claimable jobs, from where the last claim ended.';
