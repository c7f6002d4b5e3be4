-- _lock_lease(job, token) → the lease, its job and itself locked, if this token holds it.
--
-- Every function that acts for one lease holder begins here, so the fence exists once.
-- Locks     the job, then its lease.
-- Errors    MQ001 lease lost, MQ002 no such job, MQ004 not admitted by the login's policy.
create or replace function moonmind_queue._lock_lease(p_job_id bigint, p_token bigint)
returns moonmind_queue.lease
language plpgsql
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_lease lease;
begin
    perform from job where id = p_job_id for update;
    if not found then
        raise exception 'job % does not exist', p_job_id using errcode = 'MQ002';
    end if;
    select * into v_lease from lease where job_id = p_job_id and token = p_token for update;
    if not found then
        raise exception 'token % no longer holds job %', p_token, p_job_id using errcode = 'MQ001';
    end if;
    perform _check_policy(array[p_job_id], array[p_token]);
    return v_lease;
end;
$$;

comment on function moonmind_queue._lock_lease(bigint, bigint) is 'Lock a job on behalf of its lease holder, or raise.';
