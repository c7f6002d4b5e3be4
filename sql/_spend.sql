-- _spend(lane) → in words which budget that others share is used up for this lane; null when none is.
--
-- Contract
--   * What is used up is written down, so that no claim has to add up.
-- Locks     the caller has them: _lock_budgets().
create or replace function moonmind_queue._spend(p_lane moonmind_queue.lane)
returns text
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
begin
    insert into spent_budget (scope, name, period, until, reason)
    select scope, name, period, until, reason
    from budget_overview
    where used_up
      and (scope, name) in (('repository', p_lane.repository), ('agent', p_lane.agent), ('queue', '*'))
    on conflict (scope, name, period) do update set until = excluded.until, reason = excluded.reason;
    return _spent(p_lane.agent, p_lane.repository);
end;
$$;

comment on function moonmind_queue._spend(moonmind_queue.lane) is 'Write down the budgets that are used up now.';
