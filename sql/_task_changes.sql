-- _task_changes(jobs) → those jobs that exist and say something else than these, and the jobs that each is to need.
--
-- Contract
--   * jobs is what _task_jobs() made. The names of what is different are in changed.
create or replace function moonmind_queue._task_changes(p_jobs jsonb)
returns table (job_id bigint, wanted jsonb, needs bigint[], changed text[])
language plpgsql
stable
set search_path = moonmind_queue, pg_temp
as $$
#variable_conflict use_column
begin
    return query
    with given as materialized (
        select wanted, rec.*, array(
            select distinct needed.id
            from jsonb_array_elements_text(wanted -> 'after') as after (task)
            join job as needed on needed.key = after.task
            order by needed.id
        ) as needs
        from jsonb_array_elements(p_jobs) as wanted
        cross join lateral jsonb_to_record(wanted) as rec (
            key text, name text, agent text, kind text, payload jsonb, priority integer,
            max_attempts integer, timeout interval, capabilities text[]
        )
    ),
    compared as (
        select job.id, given.wanted, given.needs, array_remove(array[
            case when job.name is distinct from given.name then 'name' end,
            case when job.agent <> given.agent then 'agent' end,
            case when job.kind <> given.kind then 'kind' end,
            case when job.payload <> given.payload then 'payload' end,
            case when job.priority <> coalesce(given.priority, 0) then 'priority' end,
            case when job.max_attempts <> coalesce(given.max_attempts, 3) then 'max_attempts' end,
            case when job.timeout is distinct from given.timeout then 'timeout' end,
            case when lane.capabilities <> _capabilities(given.capabilities) then 'capabilities' end,
            case when given.needs <> array(
                select needs_job_id from dependency where dependency.job_id = job.id order by needs_job_id
            ) then 'deps' end
        ], null) as changed
        from given
        join job on job.key = given.key
        join lane on lane.id = job.lane_id
    )
    select id, wanted, needs, changed from compared where changed <> '{}' order by id;
end;
$$;

comment on function moonmind_queue._task_changes(jsonb) is 'What seeding would change of jobs that exist.';
