-- _enqueue_occurrences(schedule, occurrences) → the ids of the jobs that were made, in that order.
--
-- Contract
--   * One job for each occurrence, due since its instant; none where the key is taken: a schedule
--     that was removed and added again does not repeat itself.
--   * Whoever made the schedule had the right to: the worker that enqueues is not charged.
--   * Without a name of its own a job is called after its schedule.
-- Locks     the schedule is locked by the caller.
-- Notifies  moonmind_queue
-- Events    created, scheduled
create or replace function moonmind_queue._enqueue_occurrences(
    p_schedule moonmind_queue.schedule,
    p_due      timestamptz[]
)
returns bigint[]
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_at   text[];  -- the instants in UTC
    v_jobs jsonb;
    v_ids  bigint[] := '{}';
begin
    select array_agg(named.at order by due.at),
           jsonb_agg(
               jsonb_build_object('name', p_schedule.name) || p_schedule.job
               || jsonb_build_object('key', named.key, 'run_at', named.at)
               order by due.at
           )
    into v_at, v_jobs
    from unnest(p_due) as due (at)
    cross join lateral (
        select iso, format('schedule/%s/%s', p_schedule.name, iso)
        from to_char(due.at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') as iso
    ) as named (at, key)
    where not exists (select from job where job.key = named.key);
    if v_jobs is null then
        return v_ids;
    end if;

    select array_agg(id order by place) into v_ids
    from _add_jobs(v_jobs, false) with ordinality as made (id, place);
    perform _log(id, 'scheduled', format('for %s by schedule %s', at, p_schedule.name),
                 p_data => jsonb_build_object('schedule', p_schedule.name, 'occurrence', at))
    from unnest(v_ids, v_at) as made (id, at);
    return v_ids;
end;
$$;

comment on function moonmind_queue._enqueue_occurrences(moonmind_queue.schedule, timestamptz[])
is 'Make the jobs of a schedule''s occurrences.';
