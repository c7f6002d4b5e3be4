-- next_due(agents, kinds, capabilities) → how long until time alone brings such a worker something.
--
-- Contract
--   * The earliest run_at of a scheduled job that it may take, the earliest end of any lease, or
--     the next occurrence of any schedule; 0 when that has passed, null when there is none.
--   * Reads only: an idle worker sleeps this long, or until it is notified.
create or replace function moonmind_queue.next_due(
    p_agents       text[] default null,
    p_kinds        text[] default null,
    p_capabilities text[] default '{}'
)
returns interval
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_lanes constant integer[] := _lanes(p_agents, p_kinds, p_capabilities);
    v_due   timestamptz;
begin
    select least(
        (
            select min(first.run_at)
            from unnest(v_lanes) as lane (id)
            cross join lateral (
                select run_at from scheduled where lane_id = lane.id order by run_at limit 1
            ) as first
        ),
        (select min(expires_at) from lease),
        (select min(due_at) from schedule)
    ) into v_due;
    if v_due is null then  -- greatest() would pass over it
        return null;
    end if;
    return greatest(v_due - _now(), interval '0');
end;
$$;

comment on function moonmind_queue.next_due(text[], text[], text[]) is 'The sleep of an idle worker.';
