-- add_schedule(name, cron, job, timezone, catch_up, next_at) → 'created', 'updated' or 'unchanged'.
--
-- Contract
--   * The same definition again changes nothing, its next occurrence included; call it at each
--     deployment. Another definition replaces the first; a new cron or time zone brings next_at.
--   * job has the parameters of enqueue() as names, as in enqueue_many(), without key, run_at and
--     after: each occurrence brings its own. It is tried out, so what enqueue would refuse is
--     refused here.
--   * next_at is the first occurrence; the database cannot read cron. Without it a worker computes
--     it at once, and keeps what is wrong with cron in schedule_overview.error.
-- Locks     the schedule.
-- Notifies  moonmind_queue, for sleeping workers have another instant to wake at.
-- Errors    22023 unknown time zone, a job that cannot be enqueued; 23514 a value that a table refuses.
create or replace function moonmind_queue.add_schedule(
    p_name     text,
    p_cron     text,
    p_job      jsonb,
    p_timezone text        default 'UTC',
    p_catch_up text        default 'once',
    p_next_at  timestamptz default null
)
returns text
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_now      constant timestamptz := _now();
    v_cron     constant text := regexp_replace(trim(p_cron), '\s+', ' ', 'g');
    v_timezone constant text := coalesce(p_timezone, 'UTC');
    v_revision integer;
begin
    if p_name is null or v_cron is null then
        raise exception 'a schedule needs a name and a cron expression, not % and %',
            coalesce(left(p_name, 100), 'null'), coalesce(left(v_cron, 100), 'null')
            using errcode = 'invalid_parameter_value';
    end if;
    -- "at time zone" would take any nonsense with a digit for an offset.
    if not exists (select from pg_timezone_names where name = v_timezone) then
        raise exception 'schedule %: unknown time zone "%"; give an IANA name such as Europe/Berlin',
            left(p_name, 100), left(v_timezone, 100)
            using errcode = 'invalid_parameter_value';
    end if;
    perform _check_template(p_name, p_job);

    insert into schedule (name, cron, timezone, job, catch_up, next_at, created_at, updated_at)
    values (p_name, v_cron, v_timezone, p_job, coalesce(p_catch_up, 'once'), p_next_at, v_now, v_now)
    on conflict (name) do update
    set cron = excluded.cron,
        timezone = excluded.timezone,
        job = excluded.job,
        catch_up = excluded.catch_up,
        next_at = case
            when (schedule.cron, schedule.timezone) = (excluded.cron, excluded.timezone) then schedule.next_at
            else excluded.next_at
        end,
        revision = schedule.revision + 1,
        error = null,
        retry_at = null,
        updated_at = v_now
    where (schedule.cron, schedule.timezone, schedule.job, schedule.catch_up)
        <> (excluded.cron, excluded.timezone, excluded.job, excluded.catch_up)
    returning revision into v_revision;
    if not found then
        return 'unchanged';
    end if;

    perform _ring(array[coalesce(p_job ->> 'agent', 'codex')]);
    return case v_revision when 1 then 'created' else 'updated' end;
end;
$$;

comment on function moonmind_queue.add_schedule(text, text, jsonb, text, text, timestamptz)
is 'Add a schedule, or change the one of that name.';
