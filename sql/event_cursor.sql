-- event_cursor(since, last) → a cursor for read_events(): from the first event of that time on; or
-- (null) with what comes now, after the last ones.
--
-- Contract
--   * '-infinity' starts with the oldest event that is kept. Another time reads the months since
--     then once; last does not.
--   * What has a lower number than the first event and is not committed yet is not read.
create or replace function moonmind_queue.event_cursor(p_since timestamptz default null, p_last integer default 0)
returns text
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_high  constant bigint := coalesce(pg_sequence_last_value('moonmind_queue.event_pos_seq'), 0);
    v_first bigint;
begin
    if p_since = '-infinity' then
        v_first := 1;
    elsif p_since is not null then
        with recent as materialized (select pos from event where at >= p_since)
        select min(pos) into v_first from recent;
    else
        with latest as materialized (select pos from event order by pos desc limit p_last)
        select min(pos) into v_first from latest;
    end if;
    return format('{[%s,)}', coalesce(v_first, v_high + 1));
end;
$$;

comment on function moonmind_queue.event_cursor(timestamptz, integer) is 'Where to begin to read the events of all jobs.';
