-- _cancel_doomed(jobs) → void; cancels those new jobs that wished to be when a job they need had failed.
--
-- Locks     the jobs are the caller's own.
-- Events    cancelled
create or replace function moonmind_queue._cancel_doomed(p_job_ids bigint[])
returns void
language plpgsql
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set enable_hashjoin = off
set max_parallel_workers_per_gather = 0
set enable_mergejoin = off
as $$
declare
    v_doomed record;
begin
    for v_doomed in
        select job.id, min(needed.id) as needs, (array_agg(needed.state order by needed.id))[1] as state
        from job
        join dependency on dependency.job_id = job.id
        join job as needed on needed.id = dependency.needs_job_id
        where job.id = any (p_job_ids)
          and job.state = 'waiting'
          and job.on_dependency_failure = 'cancel'
          and needed.state in ('failed', 'dead_letter', 'cancelled')
        group by job.id
        order by job.id
    loop
        if exists (select from job where id = v_doomed.id and state = 'waiting') then  -- not with one before it
            perform _end(v_doomed.id, 'cancelled', format('needs job %s, which is %s', v_doomed.needs, v_doomed.state),
                         'cancelled', 'warn');
        end if;
    end loop;
end;
$$;

comment on function moonmind_queue._cancel_doomed(bigint[]) is 'Cancel new jobs whose dependency has failed already.';
