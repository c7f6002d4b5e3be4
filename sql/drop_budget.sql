-- drop_budget(scope, name, period) → whether there was one; of that period, or of all (null).
--
-- Locks     the budgets, which are reckoned anew.
-- Notifies  moonmind_queue
create or replace function moonmind_queue.drop_budget(p_scope text, p_name text default '*', p_period text default null)
returns boolean
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_any boolean;
begin
    perform _lock_budgets();
    delete from budget
    where scope = p_scope
      and period = coalesce(p_period, period)
      and name = case when p_scope = 'repository' and p_name <> '*'
          then _repository(jsonb_build_object('repository', p_name)) else p_name end;
    v_any := found;
    if v_any then
        perform _reckon_budgets();
    end if;
    return v_any;
end;
$$;

comment on function moonmind_queue.drop_budget(text, text, text) is 'Take budgets away.';
