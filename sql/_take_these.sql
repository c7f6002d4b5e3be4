-- _take_these(jobs, lanes, limit, now) → those of the jobs that are claimable, locked and out of ready.
--
-- Contract
--   * What _take() demands of a job holds here too: its lane is one of these, it is due, all its
--     needs are met, the limits leave room, and nobody else has it locked.
-- Locks     rows of job, skip locked, then those of ready; the limits as _lock_room() does.
create or replace function moonmind_queue._take_these(
    p_job_ids bigint[],
    p_lanes   integer[],
    p_limit   integer,
    p_now     timestamptz
)
returns bigint[]
language plpgsql
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_job   job;
    v_taken bigint[] := '{}';
begin
    for v_job in
        select job.*
        from job
        where id = any (p_job_ids)
          and state = 'queued'
          and lane_id = any (p_lanes)
          and (expires_at is null or expires_at > p_now)
          and not exists (
              select from dependency
              left join job as needed on needed.id = dependency.needs_job_id
              where dependency.job_id = job.id
                and not _is_met(needed.state, job.on_dependency_failure)
          )
        order by rank, id
        for update of job skip locked
    loop
        exit when cardinality(v_taken) >= p_limit;
        continue when exists (select from run_limit) and not _lock_room(v_job.lane_id, v_taken);
        delete from ready
        where lane_id = v_job.lane_id and rank = v_job.rank and job_id = v_job.id;
        if found then  -- else its time has not come
            v_taken := v_taken || v_job.id;
        end if;
    end loop;
    return v_taken;
end;
$$;

comment on function moonmind_queue._take_these(bigint[], integer[], integer, timestamptz) is 'Lock those of some jobs that can be claimed.';
