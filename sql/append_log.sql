-- append_log(job, token, content, stream, stage) → where the piece stands in the job's live log.
--
-- Contract
--   * By the lease holder only. A piece is as many whole lines as have come since the last one:
--     send a few a second, not one for each line.
--   * Positions of a job grow in the order in which pieces are committed, so a reader that goes on
--     from the last one it saw misses nothing. They have gaps.
--   * For reading along. What must be kept is an artifact; the log goes with its job.
-- Locks     the job, its lease.
-- Errors    MQ001, MQ002, MQ004; 22023 no content or more than 256 KiB; 23514 a stream that is neither
--           stdout nor stderr, a stage above 100 characters.
create or replace function moonmind_queue.append_log(
    p_job_id  bigint,
    p_token   bigint,
    p_content text,
    p_stream  text default 'stdout',
    p_stage   text default ''
)
returns bigint
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_lease constant lease := _lock_lease(p_job_id, p_token);
    v_pos   bigint;
begin
    if p_content is null or octet_length(p_content) > 262144 then
        raise exception 'a piece of a log has up to 256 KiB, not %', coalesce(octet_length(p_content)::text, 'null')
            using errcode = 'invalid_parameter_value';
    end if;
    insert into log_chunk (job_id, at, attempt, stage, stream, content)
    values (p_job_id, _now(), v_lease.attempt, coalesce(p_stage, ''), coalesce(p_stream, 'stdout'), p_content)
    returning pos into v_pos;
    return v_pos;
end;
$$;

comment on function moonmind_queue.append_log(bigint, bigint, text, text, text) is 'Add to the live log of a job that one holds.';
