-- _check_template(schedule, job) → void, or the error that enqueueing the job would raise.
--
-- Contract
--   * Enqueues the job and takes that back, so whatever enqueue refuses is refused, in its words.
--     Nothing is left but a gap in the ids; the notification is taken back too.
-- Errors    22023 not an object, a name that an occurrence brings; those of enqueue_many.
create or replace function moonmind_queue._check_template(p_schedule text, p_job jsonb)
returns void
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_brought constant text[] := '{key,run_at,after,expires_at}';
    v_given   text;
begin
    if jsonb_typeof(p_job) is distinct from 'object' then
        raise exception 'schedule %: the job is not an object with the parameters of enqueue', p_schedule
            using errcode = 'invalid_parameter_value';
    end if;
    select string_agg(name, ', ' order by name) into v_given
    from jsonb_object_keys(p_job) as name
    where name = any (v_brought);
    if v_given is not null then
        raise exception 'schedule %: its job cannot have %; each occurrence is a job of its own', p_schedule, v_given
            using errcode = 'invalid_parameter_value';
    end if;

    begin
        perform enqueue_many(jsonb_build_array(p_job));
        raise sqlstate 'MQ999';  -- a way back, and no error: it never leaves this block
    exception when sqlstate 'MQ999' then
        null;
    end;
end;
$$;

comment on function moonmind_queue._check_template(text, jsonb) is 'Refuse a job that could not be enqueued.';
