-- _restore_tasks(jobs, dag) → the ids of tasks that were blocked because the file had lost them, and run again.
--
-- Contract
--   * All these jobs are tasks of this DAG from now on.
-- Locks     the jobs are locked by the caller.
-- Events    retried
create or replace function moonmind_queue._restore_tasks(p_jobs jsonb, p_dag text)
returns bigint[]
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_job  job;
    v_back bigint[] := '{}';
begin
    for v_job in
        select job.*
        from job
        join dag_task on dag_task.job_id = job.id
        where job.key in (select wanted ->> 'key' from jsonb_array_elements(p_jobs) as wanted)
          and dag_task.gone
          and job.state = 'blocked'
        order by job.id
    loop
        perform _retry(v_job, _now());
        v_back := v_back || v_job.id;
    end loop;
    insert into dag_task (job_id, dag)
    select job.id, p_dag
    from job
    where job.key in (select wanted ->> 'key' from jsonb_array_elements(p_jobs) as wanted)
    on conflict (job_id) do update set dag = excluded.dag, gone = false
    where (dag_task.dag, dag_task.gone) <> (excluded.dag, false);
    return v_back;
end;
$$;

comment on function moonmind_queue._restore_tasks(jsonb, text) is 'Let tasks that have returned to their DAG run again.';
