-- _rest_in(text) → how long a text says that one has to wait; null where it does not say.
--
-- Contract
--   * "try again in 5 minutes", "resets in 1h 20m", "retry-after: 30": the first that there is, up
--     to 31 days.
create or replace function moonmind_queue._rest_in(p_text text)
returns interval
language plpgsql
immutable
set search_path = moonmind_queue, pg_temp
as $$
declare
    c_unit  constant text := '(days?|d|hours?|hrs?|h|minutes?|mins?|m|seconds?|secs?|s)\M';
    v_words text := substring(p_text from '(?i)(?:again|resets?|retry|wait)[^.]{0,40}?\min\s+((?:\d+(?:\.\d+)?\s*' || c_unit || '[\s,]*)+)');
    v_rest  interval;
begin
    if v_words is null then
        v_words := substring(p_text from '(?i)retry-after:?\s+(\d{1,7})\M') || ' s';
    end if;
    select sum(make_interval(secs => part[1]::double precision * case lower(left(part[2], 1))
        when 'd' then 86400 when 'h' then 3600 when 'm' then 60 else 1 end))
    into v_rest
    from regexp_matches(v_words, '(\d{1,7}(?:\.\d+)?)\s*' || c_unit, 'gi') as part;
    return case when v_rest > interval '0' then least(v_rest, interval '31 days') end;
end;
$$;

comment on function moonmind_queue._rest_in(text) is 'The wait that a message asks for.';
