-- see_worker(id, stopped) → whether it is asked to end; the process is alive, or says that it ends.
--
-- Errors    MQ004 a worker that the login's policy does not list.
-- Errors    22023 a process that is not registered, or was away for so long that maintain() forgot it.
create or replace function moonmind_queue.see_worker(p_id bigint, p_stopped boolean default false)
returns boolean
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_stop boolean;
begin
    perform _check_worker(worker, _policy()) from worker where id = p_id;
    update worker
    set seen_at = _now(), stopped_at = case when p_stopped then _now() end
    where id = p_id
    returning stop_requested_at is not null into v_stop;
    if not found then
        raise exception 'worker process % is not registered', p_id using errcode = 'invalid_parameter_value';
    end if;
    if p_stopped then
        perform doze(p_id, false);
    end if;
    return v_stop;
end;
$$;

comment on function moonmind_queue.see_worker(bigint, boolean) is 'Record that a worker process is alive, or that it ends.';
