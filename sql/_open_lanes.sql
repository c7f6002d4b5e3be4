-- _open_lanes(agents, kinds, capabilities, policy) → the ids of the lanes that the caller may take from now.
--
-- Contract
--   * A null list of agents or kinds admits all of them; a worker must offer every capability that
--     a lane requires.
--   * What is asked for is narrowed to the policy.
--   * A lane of a paused agent is not open, nor one whose budget is used up. What run_limit has to
--     say, _room() says.
-- Errors    MQ004 when the policy leaves none of the agents or none of the kinds.
create or replace function moonmind_queue._open_lanes(
    p_agents       text[],
    p_kinds        text[],
    p_capabilities text[],
    p_policy       moonmind_queue.policy
)
returns integer[]
language plpgsql
stable
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
as $$
declare
    v_offered constant text[] := _capabilities(p_capabilities);
begin
    if p_policy.role is not null and (
        not p_agents && p_policy.agents or not p_kinds && p_policy.kinds
    ) then
        raise exception 'the policy of % admits none of what was asked for: agents %, kinds %',
            session_user, coalesce(p_agents::text, 'all'), coalesce(p_kinds::text, 'all')
            using errcode = 'MQ004';
    end if;
    return array(
        select lane.id
        from lane
        where (p_agents is null or agent = any (p_agents))
          and (p_kinds is null or kind = any (p_kinds))
          and capabilities <@ v_offered
          and (p_policy.role is null or _permits(p_policy, lane))
          and not (exists (select from pause) and _is_paused(agent))
          and not (exists (select from spent_budget) and _spent(agent, repository) is not null)
    );
end;
$$;

comment on function moonmind_queue._open_lanes(text[], text[], text[], moonmind_queue.policy) is 'The lanes that a worker may take from now.';
