-- _take_next(lanes, limit, now) → ids of the most urgent jobs of these lanes, locked and out of ready, for a claim.
--
-- Contract
--   * Of fewer than a hundred, always the most urgent; unless this session has found that a look at all of them is dear.
-- Locks     as _take(), and _take_onwards() for many.
create or replace function moonmind_queue._take_next(p_lanes integer[], p_limit integer, p_now timestamptz)
returns bigint[]
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
declare
    c_many  constant boolean := p_limit >= 100;
    v_taken record;
begin
    if c_many or current_setting('moonmind_queue.floor', true) <> '' then
        return _take_onwards(p_lanes, p_limit, p_now, c_many);
    end if;
    v_taken := _take(p_lanes, p_limit, p_now);
    if _rest_after(v_taken.gone) is not null then
        perform _keep_floor(v_taken.floor, p_now + _rest_after(v_taken.gone), true);
    end if;
    return v_taken.job_ids;
end;
$$;

comment on function moonmind_queue._take_next(integer[], integer, timestamptz) is 'Lock the most urgent claimable jobs.';
