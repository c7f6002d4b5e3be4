-- hear(job, token, all) → the messages for the agent of a job, oldest first, each once; with all those heard before, too.
--
-- Contract
--   * By the lease holder only. all is for who tells an agent that knows nothing of earlier attempts.
-- Locks     the job, its lease.
-- Errors    MQ001, MQ002, MQ004.
create or replace function moonmind_queue.hear(p_job_id bigint, p_token bigint, p_all boolean default false)
returns table (id bigint, content text)
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
#variable_conflict use_column
begin
    perform _lock_lease(p_job_id, p_token);
    return query
    with said as (
        select message.id, message.content
        from message
        where job_id = p_job_id and (heard_at is null or coalesce(p_all, false))
    ),
    heard as (
        update message set heard_at = _now() where job_id = p_job_id and heard_at is null
    )
    select said.id, said.content from said order by said.id;
end;
$$;

comment on function moonmind_queue.hear(bigint, bigint, boolean) is 'Take what was said to the agent of a job that one holds.';
