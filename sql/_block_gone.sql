-- _block_gone(jobs, dag) → the ids of tasks of the DAG that are not among these jobs and are blocked for that.
--
-- Contract
--   * What is held, has ended or is blocked for another reason stays as it is.
-- Locks     the tasks are locked by the caller.
-- Events    removed
create or replace function moonmind_queue._block_gone(p_jobs jsonb, p_dag text)
returns bigint[]
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_job  job;
    v_gone bigint[] := '{}';
begin
    for v_job in
        select job.*
        from job
        join dag_task on dag_task.job_id = job.id
        where dag_task.dag = p_dag
          and job.key not in (select wanted ->> 'key' from jsonb_array_elements(p_jobs) as wanted)
          and job.state in ('waiting', 'queued')
        order by job.id
    loop
        if v_job.state = 'queued' then
            perform _withdraw(v_job);
        end if;
        perform _end(v_job.id, 'blocked', format('not in DAG %s any more', p_dag), 'removed', 'warn');
        v_gone := v_gone || v_job.id;
    end loop;
    update dag_task set gone = true where job_id = any (v_gone);
    return v_gone;
end;
$$;

comment on function moonmind_queue._block_gone(jsonb, text) is 'Block tasks that their DAG has lost.';
