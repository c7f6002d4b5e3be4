-- _log(job, type, message, level, worker, data) → the number of the event.
--
-- Contract
--   * The caller holds the job's row lock; the number is the next one of this job.
create or replace function moonmind_queue._log(
    p_job_id  bigint,
    p_type    text,
    p_message text default '',
    p_level   text default 'info',
    p_worker  text default session_user,
    p_data    jsonb default null
)
returns integer
language plpgsql
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_seq integer;
begin
    update job set event_seq = event_seq + 1 where id = p_job_id returning event_seq into v_seq;
    insert into event (job_id, seq, at, type, level, message, worker, data)
    values (p_job_id, v_seq, _now(), p_type, p_level, coalesce(p_message, ''), p_worker, p_data);
    return v_seq;
end;
$$;

comment on function moonmind_queue._log(bigint, text, text, text, text, jsonb) is 'Append one event to a locked job''s history.';
