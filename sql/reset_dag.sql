-- reset_dag(dag, force) → the number of the epoch that begins: every task of the DAG is to run anew.
--
-- Contract
--   * Whatever has ended or is blocked runs again, and what rests runs now; attempts are counted
--     anew. Tasks that the file has lost stay blocked. The history stays.
--   * Refused while a task is held, unless forced: then it is taken away, and its token keeps the
--     late worker out.
-- Locks     the DAG; its jobs, in id order; then as retry() and unlock().
-- Notifies  moonmind_queue; moonmind_queue_control with the names of workers that lose a task.
-- Events    unlocked; retried
-- Errors    MQ002 no such DAG; MQ003 a task is held.
create or replace function moonmind_queue.reset_dag(p_dag text default 'agentmux', p_force boolean default false)
returns integer
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_now   constant timestamptz := _now();
    v_epoch integer;
    v_ids   bigint[];
    v_held  record;
    v_job   job;
begin
    update dag set epoch = epoch + 1, reset_at = v_now where name = p_dag returning epoch into v_epoch;
    if not found then
        raise exception 'there is no DAG %; seed it first', left(p_dag, 100) using errcode = 'MQ002';
    end if;
    v_ids := array(select job_id from dag_task where dag = p_dag and not gone);
    perform _lock_jobs(v_ids, true);
    for v_held in
        select job.id, job.key, lease.worker
        from lease
        join job on job.id = lease.job_id
        where lease.job_id = any (v_ids)
        order by job.id
    loop
        if not coalesce(p_force, false) then
            raise exception 'task % is held by %; stop the worker first, or force the reset', v_held.key, v_held.worker
                using errcode = 'MQ003';
        end if;
        perform unlock(v_held.id, true);
    end loop;
    for v_job in
        select * from job
        where id = any (v_ids)
          and (state not in ('waiting', 'queued') or attempt > 0 or run_at > v_now)
        order by id
    loop
        -- Read again: a task before it may have made it wait.
        select * into v_job from job where id = v_job.id;
        if v_job.state = 'queued' then
            perform _withdraw(v_job);
        end if;
        perform _retry(v_job, v_now);
    end loop;
    return v_epoch;
end;
$$;

comment on function moonmind_queue.reset_dag(text, boolean) is 'Let every task of a DAG run anew.';
