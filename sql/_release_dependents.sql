-- _release_dependents(jobs) → void; the jobs have ended: queue who waited for the last of them.
--
-- Contract
--   * A waiting dependent for whom that meets its dependency counts one unmet less for each; at
--     none it is queued.
-- Locks     the dependents are locked by the caller, whatever their state: one that is just coming
--           back to waiting counts this end itself or is counted here, never neither.
-- Events    ready
create or replace function moonmind_queue._release_dependents(p_job_ids bigint[])
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
    v_now  constant timestamptz := _now();
    v_free bigint[];
begin
    with met as (
        select dependency.job_id, count(*) as number
        from unnest(p_job_ids) as ended (id)
        join job as needed on needed.id = ended.id
        join dependency on dependency.needs_job_id = needed.id
        join job on job.id = dependency.job_id
        where job.state = 'waiting' and _is_met(needed.state, job.on_dependency_failure)
        group by dependency.job_id
    ),
    counted as (
        update job
        set unmet = unmet - number,
            state = case when unmet = number then 'queued' else 'waiting' end,
            event_seq = event_seq + (unmet = number)::integer,
            updated_at = v_now
        from met
        where job.id = met.job_id
        returning id, state, event_seq
    ),
    logged as (
        insert into event (job_id, seq, at, type, message)
        select id, event_seq, v_now, 'ready', 'every dependency is met'
        from counted
        where state = 'queued'
    )
    select array_agg(id) into v_free from counted where state = 'queued';
    if v_free is not null then
        perform _offer(v_free);
    end if;
end;
$$;

comment on function moonmind_queue._release_dependents(bigint[]) is 'Queue the dependents that no longer wait for anything.';
