-- doze(worker, asleep) → void; the worker process waits for a notification from now on, or no longer does.
--
-- Contract
--   * Commit before you wait, and call next_due() after that: it says whether work came meanwhile.
--   * Only workers that doze are notified, only of agents that they serve, and once: who was
--     notified and finds nothing to do calls doze() again.
--   * Waits for nobody, and costs no flush: after a crash nobody sleeps.
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
declare
    v_agents text[];
begin
    perform _check_worker(worker, _policy()) from worker where id = p_worker_id;
    select coalesce(agents, '{*}') into v_agents from worker where id = p_worker_id;
    if not found and p_asleep then
        raise exception 'worker process % is not registered', p_worker_id using errcode = 'invalid_parameter_value';
    end if;
    -- What a producer is waking at this moment is gone when it commits, or a wake-up too many.
    delete from sleeper
    where ctid = any (array(
        select ctid from sleeper where agent = any (v_agents) and worker_id = p_worker_id for update skip locked
    ));
    if p_asleep then
        insert into sleeper (agent, worker_id) select unnest(v_agents), p_worker_id;
    end if;
end;
$$;

comment on function moonmind_queue.doze(bigint, boolean) is 'Say that a worker waits for a notification.';
