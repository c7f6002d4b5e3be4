-- set_failure_rule(name, source, pattern, outcome, place, rest, most, pauses, advice) → void; what a failure means from now on.
--
-- Contract
--   * In place of the rule of that name, if there is one.
-- Errors    22023 no name, source, pattern or outcome; 2201B a pattern that is no regular
--           expression; 23514 a value that the table refuses.
create or replace function moonmind_queue.set_failure_rule(
    p_name    text,
    p_source  text,
    p_pattern text,
    p_outcome text,
    p_place   integer  default 0,
    p_rest    interval default null,
    p_most    integer  default null,
    p_pauses  boolean  default false,
    p_advice  text     default ''
)
returns void
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
begin
    if p_name is null or p_source is null or p_pattern is null or p_outcome is null then
        raise exception 'a failure rule needs a name, a source, a pattern and an outcome'
            using errcode = 'invalid_parameter_value';
    end if;
    insert into failure_rule (name, place, source, pattern, outcome, rest, most, pauses, advice)
    values (
        p_name, coalesce(p_place, 0), p_source, p_pattern, p_outcome, p_rest, p_most,
        coalesce(p_pauses, false), coalesce(p_advice, '')
    )
    on conflict (name) do update
    set place = excluded.place, source = excluded.source, pattern = excluded.pattern,
        outcome = excluded.outcome, rest = excluded.rest, most = excluded.most,
        pauses = excluded.pauses, advice = excluded.advice;
    perform '' ~* p_pattern;  -- last: the table has refused a long one, which takes minutes
end;
$$;

comment on function moonmind_queue.set_failure_rule(text, text, text, text, integer, interval, integer, boolean, text)
is 'Say what a failure means.';
