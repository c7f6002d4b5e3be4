-- due_schedules(limit) → name, revision, cron, timezone, next_at and the time now, longest due first.
--
-- Contract
--   * Those that are not paused and whose next occurrence has come, or is still to be computed.
--   * The caller computes the occurrences up to now, by this clock and never by its own, and calls
--     run_schedule() with them.
--   * Reads only: any number of workers may look.
create or replace function moonmind_queue.due_schedules(p_limit integer default 100)
returns table (name text, revision integer, cron text, timezone text, next_at timestamptz, now timestamptz)
language sql
security definer
set search_path = moonmind_queue, pg_temp
as $$
    select s.name, s.revision, s.cron, s.timezone, s.next_at, clock.now
    from _now() as clock (now)
    join schedule s on s.due_at <= clock.now
    order by s.due_at, s.name
    limit p_limit;
$$;

comment on function moonmind_queue.due_schedules(integer) is 'Schedules whose time has come.';
