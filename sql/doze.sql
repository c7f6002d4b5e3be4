-- doze(worker, asleep) → void; the worker process waits for notifications from now on, or no longer does.
--
-- Contract
--   * Commit before you wait, and call next_due() after that: it says whether work came meanwhile.
--   * Only workers that doze are notified, and only of agents that they serve.
--   * Costs no flush: after a crash nobody sleeps.
-- Errors    22023 a process that is not registered; MQ004 a worker that the login's policy does not list.
create or replace function moonmind_queue.doze(p_worker_id bigint, p_asleep boolean default true)
returns void
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
begin
    perform _check_worker(worker, _policy()) from worker where id = p_worker_id;
    if p_asleep then
        insert into sleeper (agent, worker_id)
        select unnest(coalesce(agents, '{*}')), id from worker where id = p_worker_id
        on conflict do nothing;
        if not exists (select from worker where id = p_worker_id) then
            raise exception 'worker process % is not registered', p_worker_id using errcode = 'invalid_parameter_value';
        end if;
    else
        delete from sleeper
        where worker_id = p_worker_id
          and agent = any (array(select unnest(coalesce(agents, '{*}')) from worker where id = p_worker_id));
    end if;
end;
$$;

comment on function moonmind_queue.doze(bigint, boolean) is 'Say that a worker waits for notifications.';
