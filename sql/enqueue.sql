-- enqueue(kind, payload, agent, name, key, priority, run_at, after, max_attempts, capabilities,
--         timeout, expires_at, on_dependency_failure, concurrency_key, on_success, on_failure, made_by)
--         → job id.
--
-- Contract
--   * Part of the caller's transaction: the job exists exactly when that commits. The same key
--     again returns the job that has it and changes nothing.
--   * With after, the job waits until every one of those jobs has succeeded. When one ends
--     otherwise: wait for a person (the default), cancel this job too, or run it all the same.
--   * Higher priority runs first, then older run_at, then lower id; an hour of waiting outweighs
--     one level of priority.
--   * timeout bounds each attempt; null: run_timeout has one for the kind. At expires_at the job
--     is cancelled if no attempt is under way. run_limit may count by concurrency_key.
--   * on_success and on_failure list jobs, made_by is whose work brings this one: see enqueue_many().
-- Locks     the jobs named in after, shared, in id order: none of them can end unseen meanwhile;
--           then the login's row in allowance.
-- Notifies  moonmind_queue
-- Events    created, then cancelled where it applies.
-- Errors    22023 unknown dependency or a bad follow-up; 23502, 23514 a value that the table refuses; MQ004.
create or replace function moonmind_queue.enqueue(
    p_kind         text,
    p_payload      jsonb       default '{}',
    p_agent        text        default 'codex',
    p_name         text        default null,
    p_key          text        default null,
    p_priority     integer     default 0,
    p_run_at       timestamptz default null,
    p_after        bigint[]    default '{}',
    p_max_attempts integer     default 3,
    p_capabilities text[]      default '{}',
    p_timeout      interval    default null,
    p_expires_at   timestamptz default null,
    p_on_dependency_failure text default 'wait',
    p_concurrency_key       text default null,
    p_on_success jsonb  default null,
    p_on_failure jsonb  default null,
    p_made_by    bigint default null
)
returns bigint
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_now    constant timestamptz := _now();
    v_policy constant text := coalesce(p_on_dependency_failure, 'wait');
    v_unmet  integer := 0;
    v_lane   integer;
    v_rank   bigint;
    v_id     bigint;
    v_limited boolean;  -- by an allowance
begin
    if p_key is not null then
        select id into v_id from job where key = p_key;
        if found then
            return v_id;
        end if;
    end if;
    if coalesce(p_on_success, p_on_failure) is not null or p_made_by is not null then
        return (select _add_jobs(jsonb_build_array(jsonb_build_object(
            'kind', p_kind, 'payload', p_payload, 'agent', p_agent, 'name', p_name, 'key', p_key,
            'priority', p_priority, 'run_at', p_run_at, 'after', p_after, 'max_attempts', p_max_attempts,
            'capabilities', p_capabilities, 'timeout', p_timeout, 'expires_at', p_expires_at,
            'on_dependency_failure', p_on_dependency_failure, 'concurrency_key', p_concurrency_key, 'on_success', p_on_success,
            'on_failure', p_on_failure, 'made_by', p_made_by))));
    end if;
    if cardinality(p_after) > 0 then
        perform _lock_needs(p_after);
        select count(*) into v_unmet
        from job
        where id = any (p_after) and not _is_met(state, v_policy);
    end if;
    -- Most lanes exist, and a call takes as long as a statement: what _lane() finds, found here.
    select id into v_lane
    from lane
    where agent = p_agent
      and kind = p_kind
      and capabilities = p_capabilities
      and repository = case when p_payload ? 'repository' then _repository(p_payload) else '' end
      and concurrency_key = coalesce(p_concurrency_key, '')
    order by id
    limit 1;

    insert into job (
        key, name, agent, kind, state, priority, run_at, max_attempts, payload, created_at, updated_at,
        lane_id, unmet, event_seq, timeout, expires_at, on_dependency_failure, rank
    )
    values (
        p_key, p_name, p_agent, p_kind, case when v_unmet > 0 then 'waiting' else 'queued' end,
        coalesce(p_priority, 0), coalesce(p_run_at, v_now), coalesce(p_max_attempts, 3),
        coalesce(p_payload, '{}'), v_now, v_now,
        coalesce(v_lane, _lane(p_agent, p_kind, p_capabilities, p_payload, p_concurrency_key)),
        v_unmet, 1, p_timeout, p_expires_at, v_policy,
        case when isfinite(p_run_at) is not false  -- the domain of run_at refuses the rest by name
            then _rank(coalesce(p_priority, 0), coalesce(p_run_at, v_now)) else 0 end
    )
    on conflict (key) where key is not null do nothing
    returning id, lane_id, rank, exists (select from allowance where role = session_user)
    into v_id, v_lane, v_rank, v_limited;
    if v_id is null then  -- another transaction was quicker with this key, and has committed
        return (select id from job where key = p_key);
    end if;

    insert into event (job_id, seq, at, type, worker)
    values (v_id, 1, v_now, 'created', session_user);
    if cardinality(p_after) > 0 then
        insert into dependency (job_id, needs_job_id)
        select distinct v_id, needs from unnest(p_after) as needs;
    end if;
    if p_expires_at is not null then
        insert into expiry (expires_at, job_id) values (p_expires_at, v_id);
    end if;
    if v_unmet = 0 and p_run_at is null then  -- the most frequent case of _offer()
        insert into ready (lane_id, rank, job_id) values (v_lane, v_rank, v_id);
        perform _ring(array[p_agent]);
    elsif v_unmet = 0 then
        perform _offer(array[v_id]);
    elsif v_policy = 'cancel' then
        perform _cancel_doomed(array[v_id]);
    end if;
    if v_limited then perform _charge(array[v_id]); end if;
    return v_id;
end;
$$;

comment on function moonmind_queue.enqueue(text, jsonb, text, text, text, integer, timestamptz, bigint[], integer, text[], interval, timestamptz, text, text, jsonb, jsonb, bigint)
is 'Add a job, optionally after others; part of the caller''s transaction.';
