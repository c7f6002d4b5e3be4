-- _not_admitted(jobs, tokens) → those of the jobs, held with these tokens, that the login's policy does not admit.
--
-- Contract
--   * Neither a job outside the policy nor one that is held under a worker id outside it.
--   * A token that no longer holds its job is not this function's to judge.
create or replace function moonmind_queue._not_admitted(p_job_ids bigint[], p_tokens bigint[])
returns bigint[]
language plpgsql
stable
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set enable_hashjoin = off
set max_parallel_workers_per_gather = 0
set enable_mergejoin = off
as $$
declare
    v_policy constant policy := _policy();
begin
    if v_policy.role is null then
        return '{}';
    end if;
    return array(
        select lease.job_id
        from unnest(p_job_ids, p_tokens) as given (job_id, token)
        join lease on lease.job_id = given.job_id and lease.token = given.token
        join lane on lane.id = lease.lane_id
        where not _permits(v_policy, lane) or lease.worker <> all (v_policy.workers)
    );
end;
$$;

comment on function moonmind_queue._not_admitted(bigint[], bigint[]) is 'Held jobs that the login may not hold.';
