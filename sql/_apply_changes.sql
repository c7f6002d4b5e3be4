-- _apply_changes(jobs) → the ids of the jobs that said something else than these, and now say it.
--
-- Locks     the jobs are locked by the caller.
-- Events    updated
create or replace function moonmind_queue._apply_changes(p_jobs jsonb)
returns bigint[]
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_change  record;
    v_job     job;
    v_changed bigint[] := '{}';
begin
    for v_change in select * from _task_changes(p_jobs) loop
        -- Read only now: a change before this one may have made it wait.
        select * into v_job from job where id = v_change.job_id;
        perform _redefine(v_job, v_change.wanted, v_change.needs, v_change.changed);
        v_changed := v_changed || v_change.job_id;
    end loop;
    return v_changed;
end;
$$;

comment on function moonmind_queue._apply_changes(jsonb) is 'Redefine the jobs that seeding changes.';
