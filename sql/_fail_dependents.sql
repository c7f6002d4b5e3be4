-- _fail_dependents(job) → void; the job has ended without success: what its dependents asked for happens.
--
-- Contract
--   * Those that wait and said cancel are cancelled, with their own dependents that said so.
--   * Those that wait and said run count it, and each of the cancelled, as met.
--   * Those that said wait go on waiting, visible in blocked_job.
-- Locks     the dependents, in id order.
-- Events    cancelled; ready
create or replace function moonmind_queue._fail_dependents(p_job_id bigint)
returns void
language plpgsql
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set enable_hashjoin = off
set max_parallel_workers_per_gather = 0
set enable_mergejoin = off
as $$
declare
    v_now    constant timestamptz := _now();
    v_state  text;
    v_doomed bigint[];
begin
    if not exists (select from dependency where needs_job_id = p_job_id) then
        return;
    end if;
    perform _lock_dependents(p_job_id);
    select state into v_state from job where id = p_job_id;
    v_doomed := _dependents('{}', array[p_job_id]);
    v_doomed := array(
        select id
        from job
        where id = any (v_doomed)
          and state = 'waiting' and on_dependency_failure = 'cancel'
    );

    with reason as materialized (
        select edge.job_id, min(ended.id) as needs
        from unnest(p_job_id || v_doomed) as ended (id)
        cross join lateral (select job_id from dependency where needs_job_id = ended.id offset 0) as edge
        group by edge.job_id
    ),
    cancelled as (
        update job
        set state = 'cancelled',
            error = format('needs job %s, which is %s', needs, case needs when p_job_id then v_state else 'cancelled' end),
            finished_at = v_now,
            updated_at = v_now,
            event_seq = event_seq + 1
        from reason
        where job.id = reason.job_id and state = 'waiting' and on_dependency_failure = 'cancel'
        returning id, event_seq, error
    )
    insert into event (job_id, seq, at, type, level, message)
    select id, event_seq, v_now, 'cancelled', 'warn', error from cancelled;

    perform _release_dependents(p_job_id || v_doomed);
end;
$$;

comment on function moonmind_queue._fail_dependents(bigint) is 'Let dependents hear that a job failed.';
