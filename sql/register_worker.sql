-- register_worker(worker, agents, kinds, capabilities, slots, host, pid, version, versions) → the id of this process start.
--
-- Errors    22023 a worker without a usable name, no slot, or no pid, host or version; MQ004 a name
--           that the login's policy does not list.
create or replace function moonmind_queue.register_worker(
    p_worker       text,
    p_agents       text[],
    p_kinds        text[],
    p_capabilities text[],
    p_slots        integer,
    p_host         text,
    p_pid          integer,
    p_version      text,
    p_versions     jsonb default '{}'
)
returns bigint
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_now constant timestamptz := _now();
    v_id  bigint;
begin
    perform _check_worker(p_worker, _policy());
    if coalesce(p_slots, 0) < 1 then
        raise exception 'a worker needs at least 1 slot, not %', coalesce(p_slots::text, 'null')
            using errcode = 'invalid_parameter_value';
    end if;
    if p_pid is null or coalesce(length(p_host), 201) > 200 or coalesce(length(p_version), 201) > 200 then
        raise exception 'a worker needs a pid, a host and a version of at most 200 characters, not %, % and %',
            coalesce(p_pid::text, 'null'), coalesce(left(p_host, 100), 'null'), coalesce(left(p_version, 100), 'null')
            using errcode = 'invalid_parameter_value';
    end if;
    insert into worker (
        worker, agents, kinds, capabilities, slots, host, pid, version, versions, role, started_at, seen_at
    )
    values (
        p_worker, p_agents, p_kinds, _capabilities(p_capabilities), p_slots, p_host, p_pid, p_version,
        coalesce(p_versions, '{}'), session_user, v_now, v_now
    )
    returning id into v_id;
    return v_id;
end;
$$;

comment on function moonmind_queue.register_worker(text, text[], text[], text[], integer, text, integer, text, jsonb)
is 'Record the start of a worker process.';
