-- classify_failure(source, text) → the name of the rule that counts, its outcome, and what it brings; no row where none does.
--
-- For whoever writes rules: what a text would mean, without a job.
create or replace function moonmind_queue.classify_failure(p_source text, p_text text)
returns table (name text, outcome text, rest interval, most integer, pauses boolean, advice text)
language plpgsql
stable
security definer
set search_path = moonmind_queue, pg_temp
as $$
#variable_conflict use_column
declare
    v_rule constant failure_rule := _classify(p_source, p_text);
begin
    if v_rule.name is not null then
        return query
        select v_rule.name, v_rule.outcome, coalesce(_rest_in(p_text), v_rule.rest), v_rule.most, v_rule.pauses, v_rule.advice;
    end if;
end;
$$;

comment on function moonmind_queue.classify_failure(text, text) is 'What a failure would mean.';
