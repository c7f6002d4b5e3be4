-- repair() → the jobs whose rows contradicted each other, and how; they are consistent now.
--
-- Contract
--   * The queue's own functions keep every rule in one transaction, so this finds nothing unless
--     somebody wrote the tables by hand. What it found is in the view queue_fault before.
--   * A job that has ended has an end, and no other has one.
--   * A job that should be claimable or waiting is put back; unmet counts are counted anew from
--     the edges; a lease without a leased job goes, a leased job without a lease is queued.
-- Locks     the jobs at fault, in id order.
-- Notifies  moonmind_queue
-- Events    repaired
create or replace function moonmind_queue.repair()
returns table (job_id bigint, fault text)
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
#variable_conflict use_column
declare
    v_job job;
begin
    for v_job in
        select * from job where id = any (array(select queue_fault.job_id from queue_fault)) order by id for update
    loop
        select v_job.id, string_agg(queue_fault.fault, '; ' order by queue_fault.fault)
        into job_id, fault
        from queue_fault
        where queue_fault.job_id = v_job.id;
        continue when fault is null;  -- somebody else was quicker
        update job
        set finished_at = case
            when state in ('succeeded', 'failed', 'dead_letter', 'cancelled') then coalesce(finished_at, updated_at)
        end
        where id = v_job.id;
        delete from ready where ready.job_id = v_job.id;
        delete from scheduled where scheduled.job_id = v_job.id;
        perform _log(v_job.id, 'repaired', fault, 'warn');
        if v_job.state in ('waiting', 'queued')
            or v_job.state in ('claimed', 'running') and not exists (select from lease where lease.job_id = v_job.id)
        then
            perform _queue(v_job.id, v_job.run_at);
        elsif v_job.state not in ('claimed', 'running') then
            delete from lease where lease.job_id = v_job.id;
        end if;
        return next;
    end loop;
    delete from ready where not exists (select from job where id = ready.job_id);
    delete from scheduled where not exists (select from job where id = scheduled.job_id);
    delete from lease where not exists (select from job where id = lease.job_id);
end;
$$;

comment on function moonmind_queue.repair() is 'Make rows agree again that somebody wrote by hand.';
