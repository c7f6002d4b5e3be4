-- pause_schedule(name, paused) → void; with false it goes on.
--
-- Contract
--   * Nothing is enqueued while it is paused, except by hand. What was missed meanwhile is then
--     treated as its catch_up says. Going on also ends the rest after an error.
-- Locks     the schedule.
-- Notifies  moonmind_queue when it goes on.
-- Errors    MQ005
create or replace function moonmind_queue.pause_schedule(p_name text, p_paused boolean default true)
returns void
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_schedule constant schedule := _lock_schedule(p_name);
begin
    update schedule
    set paused = coalesce(p_paused, true),
        retry_at = null,
        updated_at = _now()
    where name = p_name;
    if not p_paused then
        perform _ring(array[coalesce(v_schedule.job ->> 'agent', 'codex')]);
    end if;
end;
$$;

comment on function moonmind_queue.pause_schedule(text, boolean) is 'Stop a schedule for a while, or let it go on.';
