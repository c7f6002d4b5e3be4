-- _pause(agent, cause, reason, until, by) → void
--
-- Locks     its row in pause, after any job.
create or replace function moonmind_queue._pause(
    p_agent text, p_cause text, p_reason text, p_until timestamptz, p_by text
)
returns void
language sql
set search_path = moonmind_queue, pg_temp
as $$
    insert into pause (agent, cause, reason, until, paused_at, paused_by)
    values (p_agent, p_cause, p_reason, p_until, _now(), p_by)
    on conflict (agent, cause) do update
    set reason = excluded.reason, until = excluded.until,
        paused_at = excluded.paused_at, paused_by = excluded.paused_by;
$$;

comment on function moonmind_queue._pause(text, text, text, timestamptz, text) is 'Write down a pause.';
