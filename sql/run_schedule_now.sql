-- run_schedule_now(name) → the id of a job like those of its occurrences, made at once.
--
-- Contract
--   * Without a key, besides the occurrences, and also while the schedule is paused.
-- Locks     the schedule.
-- Notifies  moonmind_queue
-- Events    created, scheduled
-- Errors    MQ005; those of enqueue_many.
create or replace function moonmind_queue.run_schedule_now(p_name text)
returns bigint
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_schedule constant schedule := _lock_schedule(p_name);
    v_job      constant bigint := enqueue_many(
        jsonb_build_array(jsonb_build_object('name', p_name) || v_schedule.job)
    );
begin
    perform _log(v_job, 'scheduled', format('by hand, from schedule %s', p_name),
                 p_data => jsonb_build_object('schedule', p_name));
    update schedule set last_job_id = v_job where name = p_name;
    return v_job;
end;
$$;

comment on function moonmind_queue.run_schedule_now(text) is 'Enqueue the job of a schedule by hand.';
