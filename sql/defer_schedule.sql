-- defer_schedule(name, revision, error) → void; the schedule rests five minutes and shows the error.
--
-- Contract
--   * For a worker that cannot compute or enqueue an occurrence. Another worker may be able to, so
--     nothing is dropped: what comes meanwhile is due, or missed, afterwards.
--   * A schedule that was changed since, or is in somebody's hands, is left alone.
-- Locks     the schedule, skip locked.
create or replace function moonmind_queue.defer_schedule(p_name text, p_revision integer, p_error text)
returns void
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
begin
    update schedule
    set error = left(p_error, 2000),
        retry_at = _now() + interval '5 min'
    where name = (select name from schedule where name = p_name and revision = p_revision for update skip locked);
end;
$$;

comment on function moonmind_queue.defer_schedule(text, integer, text) is 'Let a schedule rest that cannot be run.';
