-- _spent(agent, repository) → in words which budget of theirs is used up, the one that lasts longest; null when none is.
create or replace function moonmind_queue._spent(p_agent text, p_repository text)
returns text
language plpgsql
stable
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
as $$
begin
    return (
        select reason
        from spent_budget
        where (scope, name) in (('repository', p_repository), ('agent', p_agent), ('queue', '*'))
          and (until is null or until > _now())
        order by until desc nulls first, scope
        limit 1
    );
end;
$$;

comment on function moonmind_queue._spent(text, text) is 'Whether a budget is used up.';
