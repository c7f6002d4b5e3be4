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
set enable_hashjoin = off
set max_parallel_workers_per_gather = 0
set enable_mergejoin = off
as $$
declare
    v_now    constant timestamptz := _now();
    v_doomed bigint[];
begin
    if not exists (select from dependency where needs_job_id = p_job_id) then
        return;
    end if;
    perform _lock_dependents(p_job_id);
    v_doomed := array(
        select id
        from job
        where id = any (_dependents('{}', array[p_job_id]))
          and state = 'waiting' and on_dependency_failure = 'cancel'
    );

    with cancelled as (
        update job
        set state = 'cancelled',
            error = (
                select format('needs job %s, which is %s', needed.id,
                              case when needed.id = p_job_id then needed.state else 'cancelled' end)
                from dependency
                join job as needed on needed.id = dependency.needs_job_id
                where dependency.job_id = job.id and needed.id = any (p_job_id || v_doomed)
                order by needed.id
                limit 1
            ),
            finished_at = v_now,
            updated_at = v_now,
            event_seq = event_seq + 1
        where id = any (v_doomed)
        returning id, event_seq, error
    )
    insert into event (job_id, seq, at, type, level, message)
    select id, event_seq, v_now, 'cancelled', 'warn', error from cancelled;

    perform _release_dependents(p_job_id || v_doomed);
end;
$$;

comment on function moonmind_queue._fail_dependents(bigint) is 'Let dependents hear that a job failed.';
