-- _reckon_budgets() → void; writes anew which budgets are used up, after a budget or a price has changed.
--
-- Locks     the caller has them: _lock_budgets().
-- Notifies  moonmind_queue, of agents with claimable jobs, for some may be free now.
create or replace function moonmind_queue._reckon_budgets()
returns void
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
begin
    delete from spent_budget;
    insert into spent_budget (scope, name, period, until, reason)
    select scope, name, period, until, reason from budget_overview where used_up;
    perform _ring(array(
        select distinct agent
        from lane
        where exists (select from ready where ready.lane_id = lane.id)
    ));
end;
$$;

comment on function moonmind_queue._reckon_budgets() is 'See anew which budgets are used up.';
