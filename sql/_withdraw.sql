-- _withdraw(job) → void; takes a queued job out of the claimable set again.
--
-- Contract
--   * Looks into scheduled first: where a claim is just moving the job to ready, that waits for
--     the claim to commit, and finds the row in ready then.
-- Locks     the job is locked by the caller; its row in scheduled or ready.
create or replace function moonmind_queue._withdraw(p_job moonmind_queue.job)
returns void
language plpgsql
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
begin
    delete from scheduled
    where lane_id = p_job.lane_id and run_at = p_job.run_at and job_id = p_job.id;
    if not found then
        delete from ready
        where lane_id = p_job.lane_id and rank = p_job.rank and job_id = p_job.id;
    end if;
end;
$$;

comment on function moonmind_queue._withdraw(moonmind_queue.job) is 'Take a queued job out of the claimable set.';
