-- end_step(job, token, step, content, data) → void; the effect has happened.
--
-- Contract
--   * By the lease holder only. data is added to that of the beginning.
-- Locks     the job, its lease.
-- Events    published, with step, content and data; once.
-- Errors    MQ001, MQ002; 22023 a step that was not begun, or data above 64 KiB.
create or replace function moonmind_queue.end_step(
    p_job_id  bigint,
    p_token   bigint,
    p_step    text,
    p_content text  default '',
    p_data    jsonb default '{}'
)
returns void
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_lease constant lease := _lock_lease(p_job_id, p_token);
    v_step  publication;
begin
    perform _check_text('data', p_data::text);
    select * into v_step from publication where job_id = p_job_id and step = p_step and content = coalesce(p_content, '');
    if not found then
        raise exception 'step % of job % was not begun', left(p_step, 100), p_job_id using errcode = 'invalid_parameter_value';
    end if;
    update publication
    set done_at = coalesce(done_at, _now()), data = data || coalesce(p_data, '{}')
    where job_id = p_job_id and step = p_step and content = v_step.content;
    if v_step.done_at is null then
        perform _log(p_job_id, 'published', p_step, p_worker => v_lease.worker,
                     p_data => jsonb_build_object('content', v_step.content) || coalesce(p_data, '{}'));
    end if;
end;
$$;

comment on function moonmind_queue.end_step(bigint, bigint, text, text, jsonb) is 'Say that something has happened outside of the database.';
