-- _dependents(ended, failed) → the jobs that change when these end: ended in whatever way, failed without success.
--
-- Contract
--   * Of any job that ends, its direct dependents. Of one that fails, also what the dependents
--     asked for: who waits and said cancel takes its own dependents along, and so on.
--   * Whatever their state: one that is just coming back to waiting must be locked to see.
create or replace function moonmind_queue._dependents(p_ended bigint[], p_failed bigint[] default '{}')
returns bigint[]
language plpgsql
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set enable_hashjoin = off
set max_parallel_workers_per_gather = 0
set enable_mergejoin = off
as $$
begin
    if not exists (select from dependency where needs_job_id = any (p_ended || p_failed)) then
        return '{}';
    end if;
    return array(
        with recursive concerned as (
            select id, true as ends from unnest(p_failed) as id
            union
            select edge.job_id, edge.ends
            from concerned
            cross join lateral (  -- a fence: from what ends to its dependents, whatever statistics say
                select dependency.job_id,
                       job.state = 'waiting' and job.on_dependency_failure = 'cancel' as ends
                from dependency
                join job on job.id = dependency.job_id
                where dependency.needs_job_id = concerned.id
                  and job.on_dependency_failure <> 'wait'
                offset 0
            ) as edge
            where concerned.ends
        )
        select dependency.job_id from dependency where needs_job_id = any (p_ended)
        union
        select id from concerned where id <> all (p_failed)
    );
end;
$$;

comment on function moonmind_queue._dependents(bigint[], bigint[]) is 'The jobs that the end of others concerns.';
