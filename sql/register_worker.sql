-- register_worker(worker, agents, kinds, capabilities, slots, host, pid, version) → the id of this process start.
create or replace function moonmind_queue.register_worker(
    p_worker       text,
    p_agents       text[],
    p_kinds        text[],
    p_capabilities text[],
    p_slots        integer,
    p_host         text,
    p_pid          integer,
    p_version      text
)
returns bigint
language sql
security definer
set search_path = moonmind_queue, pg_temp
as $$
    insert into worker (worker, agents, kinds, capabilities, slots, host, pid, version, started_at, seen_at)
    select p_worker, p_agents, p_kinds, _capabilities(p_capabilities), p_slots, p_host, p_pid, p_version, now, now
    from _now() as now
    returning id;
$$;

comment on function moonmind_queue.register_worker(text, text[], text[], text[], integer, text, integer, text) is 'Record the start of a worker process.';
