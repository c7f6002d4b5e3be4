-- _check_policy(jobs) → void, or an error: the login's policy must admit every one of these jobs.
--
-- Called for every write of a lease holder, for a policy may be narrowed while a job is held.
-- Errors    MQ004
create or replace function moonmind_queue._check_policy(p_job_ids bigint[])
returns void
language plpgsql
stable
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
    v_policy constant policy := _policy();
    v_job    bigint;
begin
    if v_policy.role is null then
        return;
    end if;
    select job.id into v_job
    from job
    join lane on lane.id = job.lane_id
    where job.id = any (p_job_ids) and not _permits(v_policy, lane)
    limit 1;
    if found then
        raise exception 'the policy of % does not admit job %', session_user, v_job using errcode = 'MQ004';
    end if;
end;
$$;

comment on function moonmind_queue._check_policy(bigint[]) is 'Refuse jobs that the login may not hold.';
