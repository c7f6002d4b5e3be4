-- stop_worker(id) → void; asks one start of a worker process to hand back its jobs and end.
--
-- Contract
--   * Bound to that start: a process that begins later under the same name never hears of it. The
--     worker hears at once through its control channel, and at its next sign of life anyway.
-- Notifies  moonmind_queue_control with the worker's name.
-- Errors    MQ002 no such process, or it has stopped.
create or replace function moonmind_queue.stop_worker(p_worker_id bigint)
returns void
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_worker text;
begin
    update worker
    set stop_requested_at = coalesce(stop_requested_at, _now())
    where id = p_worker_id and stopped_at is null
    returning worker into v_worker;
    if not found then
        raise exception 'worker process % is not running', p_worker_id using errcode = 'MQ002';
    end if;
    perform pg_notify('moonmind_queue_control', v_worker);
end;
$$;

comment on function moonmind_queue.stop_worker(bigint) is 'Ask a worker process to end.';
