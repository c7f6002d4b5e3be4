-- _take_onwards(lanes, limit, now) → as _take(), going on where this session's last claim ended.
--
-- Contract
--   * For claims of many, and for all while a full look is dear: where another session keeps dead
--     rows from being cleaned up, it walks them all. Else whoever takes few gets the most urgent.
--   * What came below that meanwhile (a late commit, a retry, a higher priority, what another left)
--     is found by a full look: when there is nothing above, or too little and a look is cheap; else
--     a second later, or, after a dear one, as much later that looking takes a twentieth of the time.
--   * Those who take many at once begin one behind the other, each a limit further down: what
--     another is about to take would have to be tried row by row.
--   * Where to go on is a setting of the session, and a hint: whoever uses the session next, as
--     behind a pooler, may follow it, for it holds of the lanes and not of a worker.
-- Locks     an advisory lock, the place in that order, until the transaction ends; then as _take().
create or replace function moonmind_queue._take_onwards(p_lanes integer[], p_limit integer, p_now timestamptz)
returns bigint[]
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
declare
    c_many    constant integer  := 100;
    c_places  constant integer  := 16;
    c_dear    constant integer  := 1000;  -- pages, of some 10 us each
    c_rest    constant interval := interval '0.2 ms';  -- for each of them
    c_soonest constant interval := interval '1 s';
    c_latest  constant interval := interval '30 s';
    c_ready   constant oid      := 'ready'::regclass;
    c_order   constant oid      := 'ready_order_idx'::regclass;
    v_hint  jsonb   := coalesce(nullif(current_setting('moonmind_queue.floor', true), ''), '{}');
    v_many  boolean := p_limit >= c_many;
    v_dear  boolean := coalesce((v_hint ->> 'dear')::boolean, false);
    v_until timestamptz := v_hint ->> 'until';
    v_floor jsonb   := '{}';
    v_place integer := 0;
    v_full  boolean;  -- whether a look began at the most urgent
    v_pages bigint  := pg_stat_get_xact_blocks_fetched(c_ready) + pg_stat_get_xact_blocks_fetched(c_order);  -- of ready in this transaction, in memory or on disk
    v_taken record;
    v_ids   bigint[];
begin
    if v_until > p_now and v_until <= p_now + c_latest and (v_many or v_dear) then
        v_floor := v_hint;
    end if;
    if v_many then
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
    v_taken := _take(p_lanes, p_limit, p_now, v_floor, v_place * p_limit);
    v_ids := v_taken.job_ids;
    v_full := v_floor = '{}';
    if (v_ids = '{}' or cardinality(v_ids) < p_limit and (v_full or not v_dear)) and (v_place > 0 or not v_full) then
        v_ids := v_ids || (_take(p_lanes, p_limit - cardinality(v_ids), p_now)).job_ids;
        v_full := true;
    end if;
    if v_full then
        v_pages := pg_stat_get_xact_blocks_fetched(c_ready) + pg_stat_get_xact_blocks_fetched(c_order) - v_pages;
        v_dear := v_pages > c_dear;
        v_until := p_now + least(greatest(v_pages * c_rest, c_soonest), c_latest);
    end if;

    -- Too little: whatever comes now is to be found at once, unless that is dear.
    if v_dear or v_many and cardinality(v_ids) = p_limit then
        v_hint := v_taken.floor || jsonb_build_object('until', v_until, 'dear', v_dear);
        perform set_config('moonmind_queue.floor', v_hint::text, false);
    elsif v_floor <> '{}' then
        perform set_config('moonmind_queue.floor', '', false);
    end if;
    return v_ids;
end;
$$;

comment on function moonmind_queue._take_onwards(integer[], integer, timestamptz)
is 'Lock the most urgent claimable jobs, from where the last claim ended.';
