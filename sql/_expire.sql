-- _expire(job) → cancelled; the job has become pointless before anybody got to it.
--
-- Locks     the job is locked by the caller, and is in neither ready nor scheduled.
-- Events    cancelled
create or replace function moonmind_queue._expire(p_job moonmind_queue.job)
returns text
language sql
set search_path = moonmind_queue, pg_temp
as $$
    select _end(
        p_job.id, 'cancelled', to_char(p_job.expires_at at time zone 'UTC', '"expired at" YYYY-MM-DD HH24:MI:SS "UTC"'), 'cancelled', 'warn',
        p_data => jsonb_build_object('expires_at', p_job.expires_at)
    );
$$;

comment on function moonmind_queue._expire(moonmind_queue.job) is 'Cancel a job that has become pointless.';
