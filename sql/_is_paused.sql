-- _is_paused(agent, cause) → whether jobs of this agent are not to be claimed now.
--
-- Contract
--   * By a pause of the agent or of all; with a cause, only by one of that cause.
create or replace function moonmind_queue._is_paused(p_agent text, p_cause text default null)
returns boolean
language plpgsql
stable
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
as $$
begin
    return exists (
        select from pause
        where agent in (p_agent, '*')
          and (p_cause is null or cause = p_cause)
          and (until is null or until > _now())
    );
end;
$$;

comment on function moonmind_queue._is_paused(text, text) is 'Whether an agent is paused.';
