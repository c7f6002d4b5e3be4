-- say(job, text) → the message's number; something for the agent at work on a job, heard at its next turn.
--
-- Contract
--   * For a job that has not ended: one that runs is told when the agent's turn is over, one that
--     waits when its next attempt begins.
-- Locks     the job.
-- Events    said
-- Errors    MQ002 no such job; MQ003 a job that has ended; 22023 no text, or above 16 KiB.
create or replace function moonmind_queue.say(p_job_id bigint, p_text text)
returns bigint
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_job constant job := _lock_job(p_job_id);
    v_id  bigint;
begin
    if coalesce(p_text, '') !~ '\S' or octet_length(p_text) > 16384 then
        raise exception 'a message needs a text of at most 16 KiB, and has % bytes', coalesce(octet_length(p_text), 0)
            using errcode = 'invalid_parameter_value';
    end if;
    if v_job.state in ('succeeded', 'failed', 'dead_letter', 'cancelled') then
        raise exception 'job % has ended: it is %', p_job_id, v_job.state using errcode = 'MQ003';
    end if;
    insert into message (job_id, said_at, said_by, content) values (p_job_id, _now(), session_user, p_text)
    returning id into v_id;
    perform _log(p_job_id, 'said', p_text, p_data => jsonb_build_object('by', session_user));
    return v_id;
end;
$$;

comment on function moonmind_queue.say(bigint, text) is 'Say something to the agent at work on a job.';
