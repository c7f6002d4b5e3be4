-- _take_onwards(lanes, limit, now) → as _take(), going on where this session's last claim ended.
--
-- Contract
--   * Only for claims of many: whoever takes few at a time gets the most urgent ones, always.
--   * Those who do so at once begin one behind the other, each a limit further down: what another
--     is about to take would have to be tried row by row.
--   * What came below that meanwhile (a late commit, a retry, a higher priority, what another left)
--     is found by a full look: at once when there is too little above, and once a second anyway.
--   * Where to go on is a setting of the session, and a hint: whoever uses the session next, as
--     behind a pooler, may follow it, for it holds of the lanes and not of a worker.
-- Locks     an advisory lock, the place in that order, until the transaction ends; then as _take().
create or replace function moonmind_queue._take_onwards(p_lanes integer[], p_limit integer, p_now timestamptz)
returns bigint[]
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
declare
    c_many      constant integer  := 100;
    c_places    constant integer  := 16;
    c_full_look constant interval := interval '1 s';
    v_hint  jsonb := coalesce(nullif(current_setting('moonmind_queue.floor', true), ''), '{}');
    v_until timestamptz := v_hint ->> 'until';
    v_floor jsonb := '{}';
    v_place integer;
    v_taken record;
    v_ids   bigint[];
begin
    if p_limit < c_many then
        return (_take(p_lanes, p_limit, p_now)).job_ids;
    end if;
    if v_until > p_now and v_until <= p_now + c_full_look then
        v_floor := v_hint;
    else
        v_until := p_now + c_full_look;
    end if;
    select place into v_place
    from generate_series(0, c_places - 1) as place
    where pg_try_advisory_xact_lock(
        hashtextextended('moonmind_queue.claim', c_places * coalesce(p_lanes[1], 0)::bigint + place)
    )
    limit 1;
    v_place := coalesce(v_place, c_places);
    v_taken := _take(p_lanes, p_limit, p_now, v_floor, v_place * p_limit);
    v_ids := v_taken.job_ids;
    if cardinality(v_ids) < p_limit and (v_place > 0 or v_floor <> '{}') then
        v_ids := v_ids || (_take(p_lanes, p_limit - cardinality(v_ids), p_now)).job_ids;
    end if;
    -- Too little: whatever comes now is to be found at once.
    v_hint := case when cardinality(v_ids) = p_limit
        then v_taken.floor || jsonb_build_object('until', v_until) else '{}' end;
    if v_hint <> '{}' or v_floor <> '{}' then
        perform set_config('moonmind_queue.floor', v_hint::text, false);
    end if;
    return v_ids;
end;
$$;

comment on function moonmind_queue._take_onwards(integer[], integer, timestamptz)
is 'Lock the most urgent claimable jobs, from where the last claim ended.';
