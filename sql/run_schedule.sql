-- run_schedule(name, revision, due, next_at) → the ids of the jobs that were made.
--
-- Contract
--   * due are the occurrences that have come, in order, the first of them the schedule's own
--     next_at (none where that is null); next_at is the occurrence after them. Where the schedule
--     is paused, gone, changed or already further, nothing happens: somebody was quicker.
--   * An occurrence is missed when it is more than 60 s ago. What is not missed is enqueued; of what
--     is missed, nothing (skip), the latest (once: not these, if next_at is missed too), or all.
--   * The key of a job is schedule/<name>/<instant in UTC>: never two for one occurrence.
-- Locks     the schedule; passes over one that is locked, and so never waits.
-- Notifies  moonmind_queue
-- Events    created, scheduled
-- Errors    22023 occurrences out of order, in the future or more than 1,000.
create or replace function moonmind_queue.run_schedule(
    p_name     text,
    p_revision integer,
    p_due      timestamptz[],
    p_next_at  timestamptz
)
returns setof bigint
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_now      constant timestamptz := _now();
    v_late     constant timestamptz := v_now - interval '60 s';
    v_schedule schedule;
    v_missed   timestamptz;  -- the latest that was missed, next_at included
    v_chosen   timestamptz[];
    v_jobs     bigint[];
begin
    if p_due is null or p_next_at is null or cardinality(p_due) > 1000 or p_due[cardinality(p_due)] > v_now
        or exists (
            select from unnest(p_due) with ordinality as step (at, place)
            where (at < (p_due || p_next_at)[place + 1]) is not true
        ) then
        raise exception 'schedule %: needs up to 1,000 occurrences that have come, in order, and the next one', p_name
            using errcode = 'invalid_parameter_value';
    end if;
    select * into v_schedule
    from schedule
    where name = p_name and revision = p_revision and not paused and next_at is not distinct from p_due[1]
    for update skip locked;
    if not found then
        return;
    end if;

    select max(at) into v_missed from unnest(p_due || p_next_at) as at where at < v_late;
    select coalesce(array_agg(at order by at), '{}') into v_chosen
    from unnest(p_due) as at
    where at >= v_late or v_schedule.catch_up = 'all' or (v_schedule.catch_up = 'once' and at = v_missed);

    v_jobs := _enqueue_occurrences(v_schedule, v_chosen);
    update schedule
    set next_at = p_next_at,
        last_at = coalesce(v_chosen[cardinality(v_chosen)], last_at),
        last_job_id = coalesce(v_jobs[cardinality(v_jobs)], last_job_id),
        error = null,
        retry_at = null
    where name = p_name;
    return query select unnest(v_jobs);
end;
$$;

comment on function moonmind_queue.run_schedule(text, integer, timestamptz[], timestamptz)
is 'Enqueue what has come of a schedule and move it on.';
