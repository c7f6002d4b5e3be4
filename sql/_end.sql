-- _end(job, state, error, type, level, worker, data) → the state; ends a job, or blocks it, with one event.
--
-- Contract
--   * The way into blocked, failed, dead_letter and cancelled; success has complete_many().
--   * Any lease is gone. Dependents of a job that ended do what they said for this case; what it
--     lists in on_failure is enqueued when it has failed, not when somebody cancelled it.
-- Locks     the job is locked by the caller; its dependents, in id order.
-- Notifies  moonmind_queue
create or replace function moonmind_queue._end(
    p_job_id bigint,
    p_state  text,
    p_error  text,
    p_type   text,
    p_level  text,
    p_worker text default session_user,
    p_data   jsonb default null
)
returns text
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_now constant timestamptz := _now();
begin
    delete from lease where job_id = p_job_id;
    update job
    set state = p_state,
        error = p_error,
        finished_at = case when p_state <> 'blocked' then v_now end,
        updated_at = v_now
    where id = p_job_id;
    perform _log(p_job_id, p_type, p_error, p_level, p_worker, p_data);
    if p_state <> 'blocked' then
        perform _fail_dependents(p_job_id);
    end if;
    if p_state in ('failed', 'dead_letter') then
        perform _follow_up(array[p_job_id], 'failure');
    end if;
    perform _make_room();
    return p_state;
end;
$$;

comment on function moonmind_queue._end(bigint, text, text, text, text, text, jsonb) is 'End or block a locked job.';
