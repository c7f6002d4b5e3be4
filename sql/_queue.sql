-- _queue(job, run_at) → its new state: queued, or waiting while a dependency has not succeeded.
--
-- Contract
--   * The one way back into the queue: after a failure, a lost lease, a release, a retry.
--   * Any lease is gone; the error stays until the job succeeds.
-- Locks     the job is locked by the caller.
create or replace function moonmind_queue._queue(p_job_id bigint, p_run_at timestamptz)
returns text
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_unmet integer;
begin
    delete from lease where job_id = p_job_id;
    select count(*) into v_unmet
    from dependency d
    left join job parent on parent.id = d.needs_job_id
    where d.job_id = p_job_id and parent.state is distinct from 'succeeded';

    update job
    set state = case when v_unmet > 0 then 'waiting' else 'queued' end,
        unmet = v_unmet,
        run_at = p_run_at,
        finished_at = null,
        updated_at = _now()
    where id = p_job_id;
    if v_unmet > 0 then
        return 'waiting';
    end if;
    perform _offer(array[p_job_id]);
    return 'queued';
end;
$$;

comment on function moonmind_queue._queue(bigint, timestamptz) is 'Put a locked job back into the queue, or park it.';
