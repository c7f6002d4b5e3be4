-- redrive(states, agent, kind, since, until, error, pace, limit, above, first_at, dry_run)
--         → the jobs that run again, lowest id first.
--
-- Contract
--   * retry() for every job in one of these states that ended at or after since and before until
--     (null: at any time), whose agent and kind are these (null: all), and whose error holds the
--     given text.
--   * Paced: the first runs at first_at (null: now), each further one pace later, so that what
--     failed together does not come back together.
--   * At most limit a call, ids above a given one only. To go on, call again with the last id as
--     above and the pace continued in first_at, until it returns none: no job comes twice, however
--     soon it fails again. Jobs that another session has locked are passed over.
--   * A dry run returns the jobs and changes nothing.
-- Locks     the jobs in id order, skip locked, and their dependents.
-- Notifies  moonmind_queue
-- Events    retried; waiting for dependents that were queued.
-- Errors    22023 states that are not final, a negative pace, a limit below 1.
create or replace function moonmind_queue.redrive(
    p_states text[]      default '{dead_letter,failed}',
    p_agent  text        default null,
    p_kind   text        default null,
    p_since  timestamptz default null,
    p_until  timestamptz default null,
    p_error  text        default null,
    p_pace   interval    default interval '0',
    p_limit  integer     default 1000,
    p_above  bigint      default 0,
    p_first_at timestamptz default null,
    p_dry_run  boolean     default false
)
returns setof bigint
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_first constant timestamptz := coalesce(p_first_at, _now());
    v_job   job;
    v_count integer := 0;
begin
    if p_states is null or not p_states <@ '{succeeded,failed,dead_letter,cancelled}' then
        raise exception 'redrive needs states that are final, not %', left(p_states::text, 100)
            using errcode = 'invalid_parameter_value';
    end if;
    if coalesce(p_pace, '-1 s') not between interval '0' and interval '1 day' or coalesce(p_limit, 0) < 1 then
        raise exception 'redrive needs a pace between 0 and a day and a limit of at least 1, not % and %', p_pace, p_limit
            using errcode = 'invalid_parameter_value';
    end if;
    for v_job in
        select *
        from job
        where id > coalesce(p_above, 0)
          and state = any (p_states)
          and (p_agent is null or agent = p_agent)
          and (p_kind is null or kind = p_kind)
          and (p_since is null or finished_at >= p_since)
          and (p_until is null or finished_at < p_until)
          and (p_error is null or strpos(error, p_error) > 0)
        order by id
        limit p_limit
        for update skip locked
    loop
        if not p_dry_run then
            -- Holding one job's dependents we must not wait for those of a lower one.
            continue when not _lock_jobs(array(select job_id from dependency where needs_job_id = v_job.id), false);
            perform _retry(v_job, v_first + p_pace * v_count);
            v_count := v_count + 1;
        end if;
        return next v_job.id;
    end loop;
end;
$$;

comment on function moonmind_queue.redrive(text[], text, text, timestamptz, timestamptz, text, interval, integer, bigint, timestamptz, boolean)
is 'Let all matching jobs that ended run again, paced.';
