-- remove_schedule(name) → void; the jobs that it has brought stay.
--
-- Locks     the schedule; waits for a worker that is just enqueueing an occurrence.
-- Errors    MQ005
create or replace function moonmind_queue.remove_schedule(p_name text)
returns void
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
begin
    perform _lock_schedule(p_name);
    delete from schedule where name = p_name;
end;
$$;

comment on function moonmind_queue.remove_schedule(text) is 'Remove a schedule; its jobs stay.';
