-- _room(lanes, taken) → for each lane that a limit concerns, the scopes that count it and the room left.
--
-- taken are jobs that the caller has taken but not leased yet: they count too.
--
-- Contract
--   * Counted anew from the leases each time, so nothing can leak. The name * serves each name of
--     its scope without a row of its own.
create or replace function moonmind_queue._room(p_lanes integer[], p_taken bigint[] default '{}')
returns table (lane_id integer, scope text, name text, room bigint)
language sql
stable
set search_path = moonmind_queue, pg_temp
as $$
    with held as (
        select lane.*
        from (
            select lease.lane_id from lease
            union all
            select job.lane_id from job where job.id = any (p_taken)
        ) as leased
        join lane on lane.id = leased.lane_id
    ),
    scoped as (
        select lane.id, scope.scope, scope.name
        from lane
        cross join lateral (
            values ('agent', lane.agent), ('kind', lane.kind), ('concurrency_key', lane.concurrency_key)
        ) as scope (scope, name)
        where lane.id = any (p_lanes) and scope.name <> ''
    )
    select scoped.id, scoped.scope, scoped.name,
           applied.max_running - (
               select count(*)
               from held
               where scoped.name = case scoped.scope
                   when 'agent' then held.agent
                   when 'kind' then held.kind
                   else held.concurrency_key
               end
           )
    from scoped
    cross join lateral (
        select run_limit.max_running
        from run_limit
        where run_limit.scope = scoped.scope and run_limit.name in (scoped.name, '*')
        order by run_limit.name = '*'
        limit 1
    ) as applied;
$$;

comment on function moonmind_queue._room(integer[], bigint[]) is 'How many more jobs the limits of each lane allow.';
