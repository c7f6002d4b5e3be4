-- _hold_dependents(job) → void; a job that ended will run again: who counted it as met waits for it.
--
-- Contract
--   * Dependents that are leased, blocked or final are left alone; they took what there was.
-- Locks     every dependent, in id order.
-- Errors    40001 see _lock_late().
-- Events    waiting, for one that was queued.
create or replace function moonmind_queue._hold_dependents(p_job moonmind_queue.job)
returns void
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_ids constant bigint[] := array(select job_id from dependency where needs_job_id = p_job.id);
    v_dependent job;
begin
    if v_ids = '{}' then
        return;
    end if;
    perform _lock_late(v_ids, array[p_job.id]);
    for v_dependent in
        select job.*
        from job
        where id = any (v_ids) and _is_met(p_job.state, on_dependency_failure)
        order by id
    loop
        if v_dependent.state = 'queued' then
            perform _withdraw(v_dependent);
            perform _log(v_dependent.id, 'waiting', format('job %s will run again', p_job.id));
        end if;
        update job
        set state = 'waiting', unmet = unmet + 1, updated_at = _now()
        where id = v_dependent.id and state in ('waiting', 'queued');
    end loop;
end;
$$;

comment on function moonmind_queue._hold_dependents(moonmind_queue.job) is 'Make dependents wait again for a job that will run again.';
