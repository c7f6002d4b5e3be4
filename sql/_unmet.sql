-- _unmet(job) → how many of its dependencies are not met.
create or replace function moonmind_queue._unmet(p_job_id bigint)
returns integer
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
begin
    return (
        select count(*)
        from dependency
        join job on job.id = dependency.job_id
        left join job as needed on needed.id = dependency.needs_job_id
        where dependency.job_id = p_job_id and not _is_met(needed.state, job.on_dependency_failure)
    );
end;
$$;

comment on function moonmind_queue._unmet(bigint) is 'Count the edges that a job waits for.';
