-- _classify(source, text) → the rule that says what this failure means; null where none does.
--
-- Contract
--   * The first rule of the source, or of *, whose pattern the text matches, by place and name.
create or replace function moonmind_queue._classify(p_source text, p_text text)
returns moonmind_queue.failure_rule
language plpgsql
stable
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_rule failure_rule;
begin
    select * into v_rule
    from failure_rule
    where source in (p_source, '*') and p_text ~* pattern
    order by place, name
    limit 1;
    return v_rule;
end;
$$;

comment on function moonmind_queue._classify(text, text) is 'What a failure means.';
