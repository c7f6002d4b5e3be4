-- set_limit(scope, name, max_running) → void; how many jobs of an agent, kind or concurrency_key may be leased at once.
--
-- Contract
--   * The name * serves each name of the scope without a row of its own. Null takes the limit away.
--   * Jobs that are leased go on, also above a limit that was lowered.
-- Notifies  moonmind_queue, for there may be room now.
-- Errors    22023 unknown scope, no name, a negative limit.
create or replace function moonmind_queue.set_limit(p_scope text, p_name text, p_max_running integer)
returns void
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
begin
    if coalesce(p_scope, '') not in ('agent', 'kind', 'concurrency_key') or coalesce(p_name, '') = ''
        or length(p_name) > 500 or p_max_running < 0
    then
        raise exception 'a limit needs a scope of agent, kind or concurrency_key, a name and a number of at least 0, not %, % and %',
            left(p_scope, 100), left(p_name, 100), p_max_running
            using errcode = 'invalid_parameter_value';
    end if;
    if p_max_running is null then
        perform _make_room();
        delete from run_limit where scope = p_scope and name = p_name;
    else
        insert into run_limit (scope, name, max_running)
        values (p_scope, p_name, p_max_running)
        on conflict (scope, name) do update set max_running = excluded.max_running;
        perform _make_room();
    end if;
end;
$$;

comment on function moonmind_queue.set_limit(text, text, integer) is 'Limit how many jobs run at once.';
