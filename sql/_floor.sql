-- _floor(now) → where this session's last claims ended, by lane; until when that holds; whether a full look is dear.
--
-- Contract
--   * Nothing where there is no such place, or it holds no longer: then begin at the most urgent.
--   * A time further off than 30 s was set before the clock went back, and holds no longer either.
create or replace function moonmind_queue._floor(
    p_now     timestamptz,
    out above jsonb,
    out until timestamptz,
    out dear  boolean
)
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_hint constant text := current_setting('moonmind_queue.floor', true);
begin
    above := '{}';
    dear := false;
    if v_hint = '' is not false then
        return;
    end if;
    until := v_hint::jsonb ->> 'until';
    if until > p_now and until <= p_now + interval '30 s' then
        above := v_hint::jsonb -> 'above';
        dear := v_hint::jsonb -> 'dear';
    end if;
end;
$$;

comment on function moonmind_queue._floor(timestamptz) is 'Where claims of this session go on.';
