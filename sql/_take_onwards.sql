-- _take_onwards(lanes, limit, now) → as _take(), going on where this session's last claim ended.
--
-- Contract
--   * Only for claims of many: whoever takes few at a time gets the most urgent ones, always.
--   * What came below that meanwhile (a late commit, a retry, a higher priority) is found by a full
--     look: at once when there is too little above, and once a second anyway.
--   * Where to go on is a setting of the session, and a hint: whoever uses the session next, as
--     behind a pooler, may follow it, for it holds of the lanes and not of a worker.
create or replace function moonmind_queue._take_onwards(p_lanes integer[], p_limit integer, p_now timestamptz)
returns bigint[]
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
declare
    c_many      constant integer  := 100;
    c_full_look constant interval := interval '1 s';
    v_hint  jsonb := coalesce(nullif(current_setting('moonmind_queue.floor', true), ''), '{}');
    v_until timestamptz := v_hint ->> 'until';
    v_floor jsonb := '{}';
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
    select * into v_taken from _take(p_lanes, p_limit, p_now, v_floor);
    v_ids := v_taken.job_ids;
    if cardinality(v_ids) < p_limit and v_floor <> '{}' then
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
