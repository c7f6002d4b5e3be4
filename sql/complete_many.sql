-- complete_many(jobs, tokens, results) → the jobs that this call ended, and their state.
--
-- Contract
--   * jobs[i] is held with tokens[i] and ends as succeeded with results[i] (null: {}).
--   * A job that is claimed has been started too: who runs short jobs need not say so before.
--   * A job that is missing from the answer is a lease that was lost; nothing of it changes.
--   * A cancel request that came first wins: the job is cancelled, its result kept.
--   * Dependents are released, and on_success is enqueued, in the same transaction.
-- Locks     the jobs and their dependents in one id order; then the leases, which go.
-- Notifies  moonmind_queue, for dependents.
-- Events    started where it is missing; completed or cancelled; ready for dependents; created for on_success.
-- Errors    22023 lists of different length; 23514 a result that is not an object; MQ004.
create or replace function moonmind_queue.complete_many(
    p_job_ids bigint[],
    p_tokens  bigint[],
    p_results jsonb[]
)
returns table (job_id bigint, state text)
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set enable_hashjoin = off
set max_parallel_workers_per_gather = 0
set enable_mergejoin = off
set enable_bitmapscan = off
as $$
#variable_conflict use_column
declare
    v_now       constant timestamptz := _now();
    v_needed    boolean;
    v_done      bigint[];
    v_states    text[];  -- of these
    v_succeeded bigint[];
begin
    if cardinality(p_job_ids) is distinct from cardinality(p_tokens)
        or cardinality(p_results) <> cardinality(p_job_ids)
    then
        raise exception 'complete_many needs a token and a result for every job, not % and % for %',
            cardinality(p_tokens), cardinality(p_results), cardinality(p_job_ids)
            using errcode = 'invalid_parameter_value';
    end if;
    v_needed := _lock_ends(p_job_ids);
    perform _check_policy(p_job_ids, p_tokens);

    with held as materialized (
        select given.job_id, lease.worker, lease.cancel_requested_at is not null as cancelled,
               lease.cancel_reason, lease.started, coalesce(given.result, '{}') as result
        from (
            select * from unnest(p_job_ids, p_tokens, p_results) as given (job_id, token, result)
            order by given.job_id
        ) as given
        cross join lateral (  -- with the job locked, nobody but renew() writes its lease
            select lease.*
            from lease
            where lease.job_id = given.job_id and lease.token = given.token
            offset 0  -- a fence: from what is given to its lease, whatever statistics say
        ) as lease
    ),
    released as (
        delete from lease where lease.job_id = any (array(select held.job_id from held))
    ),
    ended as (
        update job
        set state = case when cancelled then 'cancelled' else 'succeeded' end,
            result = held.result,
            error = case when cancelled then held.cancel_reason end,
            finished_at = v_now,
            updated_at = v_now,
            started_at = coalesce(started_at, v_now),
            event_seq = event_seq + case when held.started then 1 else 2 end
        from held
        where job.id = held.job_id
        returning job.id, job.state, job.event_seq, job.result, held.worker, held.cancelled, held.cancel_reason,
                  held.started
    ),
    logged as (
        insert into event (job_id, seq, at, type, level, message, worker, data)
        select id, event_seq - 1, v_now, 'started', 'info', '', worker, null
        from ended
        where not started
        union all
        select id, event_seq, v_now,
               case when cancelled then 'cancelled' else 'completed' end,
               case when cancelled then 'warn' else 'info' end,
               coalesce(cancel_reason, ''), worker, nullif(result, '{}')
        from ended
    )
    select array_agg(id order by id), array_agg(ended.state::text order by id), array_agg(id order by id) filter (where not cancelled)
    into v_done, v_states, v_succeeded
    from ended;

    if v_needed and v_succeeded is not null then
        perform _release_dependents(v_succeeded);
    end if;
    perform _follow_up(v_succeeded, 'success') where exists (select from follow_up where follow_up.job_id = any (v_succeeded));
    if v_succeeded is distinct from v_done then
        perform _fail_dependents(id) from unnest(v_done) as id where id <> all (coalesce(v_succeeded, '{}'));
    end if;
    perform _make_room();
    return query select * from unnest(v_done, v_states);
end;
$$;

comment on function moonmind_queue.complete_many(bigint[], bigint[], jsonb[]) is 'End many leased jobs well in one call.';
