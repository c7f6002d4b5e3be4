-- seed_dag(tasks, source, dag) → each task that was created, updated, unchanged, blocked or restored, and its job.
--
-- Contract
--   * tasks is an array of objects with id, agent, and optionally name, deps (ids of tasks beside
--     it), payload, priority, max_attempts, timeout and capabilities. All or nothing.
--   * A task is the job that has its id as key. New ones are created. Of others what is different
--     is updated, and their state is untouched: what is done stays done. An attempt under way keeps
--     what it was given.
--   * A task of this DAG that is not there any more is blocked, unless it is held or has ended,
--     and restored when it returns. Other jobs are left alone; source is where the tasks come from.
-- Locks     the DAG; every job that is or was a task of it, in id order.
-- Notifies  moonmind_queue
-- Events    created by agentmux-cli; updated; removed; retried.
-- Errors    22023 a task that cannot be read, an unknown dependency, a circle (with its path), by its
--           place and id; 23514 a value that the table refuses.
create or replace function moonmind_queue.seed_dag(
    p_tasks  jsonb,
    p_source text default '',
    p_dag    text default 'agentmux'
)
returns table (task text, job_id bigint, outcome text)
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
#variable_conflict use_column
declare
    v_jobs    jsonb;
    v_new     jsonb;
    v_made    bigint[] := '{}';
    v_changed bigint[];
    v_back    bigint[];
    v_gone    bigint[];
begin
    perform _check_tasks(p_tasks);
    v_jobs := _task_jobs(p_tasks);
    insert into dag (name, source, seeded_at)
    values (coalesce(p_dag, ''), coalesce(p_source, ''), _now())
    on conflict (name) do update set source = excluded.source, seeded_at = excluded.seeded_at;
    perform _lock_jobs(array(
        select job.id from job join jsonb_array_elements(v_jobs) as wanted on job.key = wanted ->> 'key'
        union
        select dag_task.job_id from dag_task where dag = p_dag
    ), true);

    select jsonb_agg(wanted order by place) into v_new
    from jsonb_array_elements(v_jobs) with ordinality as given (wanted, place)
    where not exists (select from job where key = wanted ->> 'key');
    if v_new is not null then
        v_made := array(select enqueue_many(v_new));
        update event  -- of this transaction, which nobody has seen yet
        set worker = 'agentmux-cli',
            data = jsonb_build_object(
                'name', wanted -> 'name', 'agent', wanted -> 'agent', 'deps', wanted -> 'after', 'source', p_source
            )
        from job
        join jsonb_array_elements(v_new) as wanted on job.key = wanted ->> 'key'
        where job.id = any (v_made) and event.job_id = job.id and event.seq = 1;
    end if;

    v_changed := _apply_changes(v_jobs);
    v_back := _restore_tasks(v_jobs, p_dag);
    v_gone := _block_gone(v_jobs, p_dag);
    return query
    select job.key::text, job.id, case
        when job.id = any (v_made) then 'created'
        when job.id = any (v_gone) then 'blocked'
        when job.id = any (v_back) then 'restored'
        when job.id = any (v_changed) then 'updated'
        else 'unchanged'
    end
    from (
        select wanted ->> 'key', place from jsonb_array_elements(v_jobs) with ordinality as given (wanted, place)
        union all
        select gone.key, null from job as gone where gone.id = any (v_gone)
    ) as concerned (key, place)
    join job on job.key = concerned.key
    order by concerned.place, job.id;
end;
$$;

comment on function moonmind_queue.seed_dag(jsonb, text, text) is 'Make the tasks of a DAG what its file says.';
