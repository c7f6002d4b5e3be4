-- _lane(agent, kind, capabilities, payload, concurrency_key) → the id of their lane, made when it is new.
--
-- Errors    22023 no kind or agent, or one of them or a capability above 200 characters.
create or replace function moonmind_queue._lane(
    p_agent           text,
    p_kind            text,
    p_capabilities    text[],
    p_payload         jsonb,
    p_concurrency_key text
)
returns integer
language plpgsql
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_capabilities constant text[] :=
        case when p_capabilities = '{}' then p_capabilities else _capabilities(p_capabilities) end;
    v_repository   constant text := case when p_payload ? 'repository' then _repository(p_payload) else '' end;
    v_key          constant text := coalesce(p_concurrency_key, '');
    v_lane         integer;
begin
    select id into v_lane
    from lane
    where agent = p_agent
      and kind = p_kind
      and capabilities = v_capabilities
      and repository = v_repository
      and concurrency_key = v_key
    order by id
    limit 1;
    if not found then
        if p_kind is null or p_agent is null
            or greatest(length(p_kind), length(p_agent), (select max(length(name)) from unnest(v_capabilities) as name)) > 200
        then
            raise exception 'a job needs a kind, an agent and capabilities of at most 200 characters each, not %, % and %',
                coalesce(left(p_kind, 100), 'null'), coalesce(left(p_agent, 100), 'null'), left(v_capabilities::text, 100)
                using errcode = 'invalid_parameter_value';
        end if;
        insert into lane (agent, kind, capabilities, repository, concurrency_key)
        values (p_agent, p_kind, v_capabilities, v_repository, v_key)
        returning id into v_lane;
    end if;
    return v_lane;
end;
$$;

comment on function moonmind_queue._lane(text, text, text[], jsonb, text) is 'The lane of a job.';
