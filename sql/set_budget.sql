-- set_budget(scope, name, period, max_tokens, max_cost) → void; how many tokens or how much money may be used.
--
-- Contract
--   * scope job bounds each job of the kind name over all its attempts; repository and agent bound
--     those of that name together; queue, named *, all jobs. The name * serves each name of the
--     scope without a budget of its own for that period.
--   * period is a day or a month of UTC, or total; null: total for a job, day for all others.
--   * Where one is used up no job that it bounds is claimed until the period ends or the budget is
--     raised, and attempts that tell what they use are told to end. In place of the one that was.
-- Locks     the budgets, which are reckoned anew.
-- Notifies  moonmind_queue
-- Errors    22023 no scope or name, or a repository that names none; 23514 what the table refuses.
create or replace function moonmind_queue.set_budget(
    p_scope      text,
    p_name       text    default '*',
    p_period     text    default null,
    p_max_tokens bigint  default null,
    p_max_cost   numeric default null
)
returns void
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_name constant text := case when p_scope = 'repository' and p_name <> '*'
        then _repository(jsonb_build_object('repository', p_name)) else p_name end;
begin
    if p_scope is null or coalesce(v_name, '') = '' then
        raise exception 'a budget needs a scope of job, repository, agent or queue, and a name or *, not % and %',
            left(p_scope, 100), left(p_name, 100)
            using errcode = 'invalid_parameter_value';
    end if;
    perform _lock_budgets();
    insert into budget (scope, name, period, tokens, cost)
    values (
        p_scope, v_name, coalesce(p_period, case when p_scope = 'job' then 'total' else 'day' end),
        p_max_tokens, p_max_cost
    )
    on conflict (scope, name, period) do update set tokens = excluded.tokens, cost = excluded.cost;
    perform _reckon_budgets();
end;
$$;

comment on function moonmind_queue.set_budget(text, text, text, bigint, numeric) is 'Bound what may be used.';
