-- _task_jobs(tasks) → the tasks as jobs, in the words of enqueue_many().
--
-- The one place that says how: a task's id is the job's key, its payload names the kind, which is
-- noop where it does not.
create or replace function moonmind_queue._task_jobs(p_tasks jsonb)
returns jsonb
language sql
immutable
set search_path = moonmind_queue, pg_temp
as $$
    select coalesce(jsonb_agg(
        task - '{id,deps,payload}'::text[] || jsonb_build_object(
            'key', task -> 'id',
            'kind', coalesce(task -> 'payload' ->> 'kind', 'noop'),
            'payload', coalesce(task -> 'payload', '{}') - 'kind',
            'after', coalesce(task -> 'deps', '[]')
        ) order by place
    ), '[]')
    from jsonb_array_elements(p_tasks) with ordinality as element (task, place);
$$;

comment on function moonmind_queue._task_jobs(jsonb) is 'Tasks of Agentmux as jobs.';
