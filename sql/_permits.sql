-- _permits(policy, lane) → whether the policy lets its role claim and hold jobs of this lane.
--
-- Contract
--   * A null list admits all. With repositories listed, a job that names none is not admitted.
--   * host/owner/* admits what is below; a path with a way up or an escape is never below.
create or replace function moonmind_queue._permits(p_policy moonmind_queue.policy, p_lane moonmind_queue.lane)
returns boolean
language sql
immutable
set search_path = moonmind_queue, pg_temp
as $$
    select (p_policy.agents is null or p_lane.agent = any (p_policy.agents))
       and (p_policy.kinds is null or p_lane.kind = any (p_policy.kinds))
       and (p_policy.capabilities is null or p_lane.capabilities <@ p_policy.capabilities)
       and (
           p_policy.repositories is null
           or p_lane.repository = any (p_policy.repositories)
           or p_lane.repository !~ '(^|/)\.\.?(/|$)|%' and exists (
               select from unnest(p_policy.repositories) as allowed
               where right(allowed, 2) = '/*' and starts_with(p_lane.repository, left(allowed, -1))
           )
       );
$$;

comment on function moonmind_queue._permits(moonmind_queue.policy, moonmind_queue.lane) is 'Whether a policy admits a lane.';
