-- append_event(job, token, type, message, level, data) → the number of the event.
--
-- Contract
--   * By the lease holder only. The words of the queue's own transitions are refused, so that a
--     history can be believed.
-- Locks     the job, its lease.
-- Errors    MQ001, MQ002; 22023 a type that is not a lower-case word or is the queue's own, a
--           message above 64 KiB or data above 256 KiB; 23514 unknown level.
create or replace function moonmind_queue.append_event(
    p_job_id  bigint,
    p_token   bigint,
    p_type    text,
    p_message text  default '',
    p_level   text  default 'info',
    p_data    jsonb default null
)
returns bigint
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_own   constant text[] := '{created,ready,waiting,claimed,started,completed,failed,released,expired,timed_out,cancel_requested,cancelled,blocked,dead_lettered,retried,unlocked,repaired,scheduled,artifact,updated,removed,published,said,overspent}';
    v_lease constant lease := _lock_lease(p_job_id, p_token);
begin
    if p_type is null or p_type !~ '^[a-z][a-z_]{0,62}$' or p_type = any (v_own) then
        raise exception 'an event type of a holder is a lower-case word that the queue does not use itself, not %', left(p_type, 100)
            using errcode = 'invalid_parameter_value';
    end if;
    if octet_length(p_message) > 65536 or pg_column_size(p_data) > 262144 then
        raise exception 'an event holds at most 64 KiB of message and 256 KiB of data'
            using errcode = 'invalid_parameter_value';
    end if;
    return _log(p_job_id, p_type, p_message, coalesce(p_level, 'info'), v_lease.worker, p_data);
end;
$$;

comment on function moonmind_queue.append_event(bigint, bigint, text, text, text, jsonb) is 'Add to the history of a job that one holds.';
