-- _charge(jobs) → void, or an error: the login's allowance must admit these jobs, which it has just made.
--
-- Contract
--   * What may follow them is tried out by the caller, and so is charged with them: a job is refused
--     when all that it may bring would be too much. What then follows is counted and never refused.
-- Locks     the login's row in allowance, so that calls of one login count one after the other.
-- Errors    MQ004
create or replace function moonmind_queue._charge(p_job_ids bigint[])
returns void
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_now     constant timestamptz := _now();
    v_allowed allowance;
    v_rule    policy;
    v_fault   text;
    v_used    record;
begin
    select * into strict v_allowed from allowance where role = session_user for update;
    delete from enqueued
    where role = session_user
      and at <= v_now - interval '1 day'
      and not exists (select from job where id = job_id and finished_at is null);
    insert into enqueued (role, job_id, at)
    select session_user, id, v_now from unnest(p_job_ids) as id;

    v_rule := jsonb_populate_record(null::policy, to_jsonb(v_allowed));
    select format('agent %s, kind %s, %s', lane.agent, lane.kind, coalesce('repository ' || nullif(lane.repository, ''), 'no repository'))
    into v_fault
    from job
    join lane on lane.id = job.lane_id
    where job.id = any (p_job_ids) and not _permits(v_rule, lane)
    order by job.id
    limit 1;
    if found then
        raise exception 'the allowance of % does not admit a job of %', session_user, v_fault using errcode = 'MQ004';
    end if;
    if exists (select from origin where job_id = any (p_job_ids) and depth > v_allowed.max_depth) then
        raise exception 'the allowance of % admits % generations of jobs made by jobs, and this is one more', session_user, v_allowed.max_depth
            using errcode = 'MQ004';
    end if;
    select max_open, open, max_per_day, within_a_day into v_used from allowance_overview where role = session_user;
    if v_used.open > v_used.max_open then
        raise exception 'the allowance of % admits % open jobs; with these and all that may follow it would have %', session_user, v_used.max_open, v_used.open
            using errcode = 'MQ004', hint = 'wait until some have ended, or ask an operator for more';
    elsif v_used.within_a_day > v_used.max_per_day then
        raise exception 'the allowance of % admits % jobs within 24 hours; with these and all that may follow it would have %', session_user, v_used.max_per_day, v_used.within_a_day
            using errcode = 'MQ004';
    end if;
end;
$$;

comment on function moonmind_queue._charge(bigint[]) is 'Refuse new jobs that the login may not add.';
