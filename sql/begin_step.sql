-- begin_step(job, token, step, content, data) → the step as it stands: since when, whether it is done, its data.
--
-- Called immediately before an effect outside of the database, such as a push.
--
-- Contract
--   * By the lease holder only: who has lost the lease learns it here, before the effect.
--   * The same step with the same content was begun before, by this attempt or another: its data
--     and its first beginning are returned, and whether it was done.
-- Locks     the job, its lease.
-- Errors    MQ001, MQ002; 22023 data above 64 KiB; 23514 a step that is no word, content above 500
--           characters, data that is no object.
create or replace function moonmind_queue.begin_step(
    p_job_id  bigint,
    p_token   bigint,
    p_step    text,
    p_content text  default '',
    p_data    jsonb default '{}'
)
returns table (begun_at timestamptz, done boolean, data jsonb)
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
#variable_conflict use_column
begin
    perform _lock_lease(p_job_id, p_token);
    perform _check_text('data', p_data::text);
    return query
    insert into publication (job_id, step, content, token, data, begun_at)
    values (p_job_id, coalesce(p_step, ''), coalesce(p_content, ''), p_token, coalesce(p_data, '{}'), _now())
    on conflict (job_id, step, content) do update set token = excluded.token, over = false
    returning begun_at, done_at is not null, data;
end;
$$;

comment on function moonmind_queue.begin_step(bigint, bigint, text, text, jsonb) is 'Say what one is about to do outside of the database.';
