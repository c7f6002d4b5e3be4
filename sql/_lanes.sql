-- _lanes(jobs) → the ids of their lanes, by place in the call; those that are new are made.
--
-- Errors    22023 no kind, or a kind, agent or capability above 200 characters, by its place; 23514
--           an agent or a kind that the table refuses.
create or replace function moonmind_queue._lanes(p_jobs jsonb)
returns integer[]
language plpgsql
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_lanes integer[];
    v_fault text;
begin
    loop
        with given as materialized (
            select place, coalesce(agent, 'codex') as agent, kind,
                   case when capabilities <> '{}' then _capabilities(capabilities) else '{}' end as capabilities,
                   case when payload ? 'repository' then _repository(payload) else '' end as repository,
                   coalesce(concurrency_key, '') as concurrency_key
            from rows from (
                jsonb_to_recordset(p_jobs) as (
                    agent text, kind text, capabilities text[], payload jsonb, concurrency_key text
                )
            ) with ordinality as job (agent, kind, capabilities, payload, concurrency_key, place)
        ),
        known as (
            select wanted.*, (
                select min(lane.id)
                from lane
                where lane.agent = wanted.agent
                  and lane.kind = wanted.kind
                  and lane.capabilities = wanted.capabilities
                  and lane.repository = wanted.repository
                  and lane.concurrency_key = wanted.concurrency_key
            ) as id
            from (select distinct agent, kind, capabilities, repository, concurrency_key from given) as wanted
        )
        select array_agg(known.id order by given.place) into v_lanes
        from given
        left join known using (agent, kind, capabilities, repository, concurrency_key);
        exit when array_position(v_lanes, null) is null;

        select format('job %s: needs a kind, and kind, agent and capabilities of at most 200 characters each', place)
        into v_fault
        from rows from (jsonb_to_recordset(p_jobs) as (kind text, agent text, capabilities text[]))
            with ordinality as job (kind, agent, capabilities, place)
        where kind is null
           or greatest(length(kind), length(agent), (select max(length(name)) from unnest(capabilities) as name)) > 200
        limit 1;
        if found then
            raise exception '%', v_fault using errcode = 'invalid_parameter_value';
        end if;
        perform _lane(coalesce(agent, 'codex'), kind, coalesce(capabilities, '{}'), payload, concurrency_key)
        from rows from (
            jsonb_to_recordset(p_jobs) as (
                agent text, kind text, capabilities text[], payload jsonb, concurrency_key text
            ),
            unnest(v_lanes)
        ) as job (agent, kind, capabilities, payload, concurrency_key, lane_id)
        where lane_id is null;
    end loop;
    return v_lanes;
end;
$$;

comment on function moonmind_queue._lanes(jsonb) is 'The lanes of jobs.';
