-- renew(jobs, tokens, lease) → the leases that are still held, with their new end.
--
-- Contract
--   * jobs[i] is held with tokens[i]. A row that is missing is a lease that is lost, or one that the
--     login's policy no longer admits: that job stops, the others go on.
--   * cancel_requested says that the holder should stop; lasts, how long the lease holds from now:
--     as asked for, or what the job's timeout leaves.
-- Locks     the leases, in job order; never a job, so a renewal waits for nobody's work.
-- Errors    22023 a lease not between 0 and a day, or lists of different length.
create or replace function moonmind_queue.renew(p_job_ids bigint[], p_tokens bigint[], p_lease interval)
returns table (job_id bigint, token bigint, expires_at timestamptz, cancel_requested boolean, lasts interval)
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set enable_hashjoin = off
set max_parallel_workers_per_gather = 0
set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
    v_now     constant timestamptz := _now();
    v_refused bigint[];
begin
    perform _check_lease(p_lease);
    if cardinality(p_job_ids) is distinct from cardinality(p_tokens) then
        raise exception 'renew needs a token for every job, not % for %', cardinality(p_tokens), cardinality(p_job_ids)
            using errcode = 'invalid_parameter_value';
    end if;
    v_refused := _not_admitted(p_job_ids, p_tokens);
    return query
    with held as materialized (
        select given.job_id
        from (
            select * from unnest(p_job_ids, p_tokens) as given (job_id, token)
            where given.job_id <> all (v_refused)
            order by given.job_id
        ) as given
        cross join lateral (
            select from lease where lease.job_id = given.job_id and lease.token = given.token for update
        ) as lease
    ),
    renewed as (
        update lease
        set expires_at = least(v_now + p_lease, lease.deadline_at)
        where lease.job_id = any (array(select held.job_id from held))
        returning lease.job_id, lease.token, lease.expires_at, lease.cancel_requested_at
    )
    select job_id, token, expires_at, cancel_requested_at is not null, expires_at - v_now from renewed order by job_id;
end;
$$;

comment on function moonmind_queue.renew(bigint[], bigint[], interval) is 'Extend all leases of a worker in one call.';
