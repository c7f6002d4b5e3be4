-- enqueue(kind, payload, agent, name, key, priority, run_at, after, max_attempts, capabilities) → job id.
--
-- Contract
--   * Part of the caller's transaction: the job exists exactly when that commits.
--   * The same key again returns the job that has it and changes nothing.
--   * With after, the job waits until every one of those jobs has succeeded.
--   * Higher priority runs first, then older run_at, then lower id.
-- Locks     the jobs named in after, shared, in id order: none of them can end unseen meanwhile.
-- Notifies  moonmind_queue
-- Events    created
-- Errors    22023 unknown dependency; 23514 a value that the table refuses.
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
    p_capabilities text[]      default '{}'
)
returns bigint
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
    v_now   constant timestamptz := _now();
    v_unmet integer := 0;
    v_id    bigint;
begin
    if p_key is not null then
        select id into v_id from job where key = p_key;
        if found then
            return v_id;
        end if;
    end if;
    if cardinality(p_after) > 0 then
        v_unmet := _lock_needs(p_after);
    end if;

    insert into job (
        key, name, agent, kind, state, priority, run_at, max_attempts, payload,
        created_at, updated_at, lane_id, unmet, event_seq
    )
    values (
        p_key, p_name, p_agent, p_kind, case when v_unmet > 0 then 'waiting' else 'queued' end,
        coalesce(p_priority, 0), coalesce(p_run_at, v_now), coalesce(p_max_attempts, 3),
        coalesce(p_payload, '{}'), v_now, v_now, _lane(p_agent, p_kind, p_capabilities), v_unmet, 1
    )
    on conflict (key) where key is not null do nothing
    returning id into v_id;
    if v_id is null then  -- another transaction was quicker with this key, and has committed
        select id into strict v_id from job where key = p_key;
        return v_id;
    end if;

    insert into dependency (job_id, needs_job_id)
    select distinct v_id, needs from unnest(p_after) as needs;
    insert into event (job_id, seq, at, type, worker)
    values (v_id, 1, v_now, 'created', session_user);
    if v_unmet = 0 then
        perform _offer(array[v_id]);
    end if;
    return v_id;
end;
$$;

comment on function moonmind_queue.enqueue(text, jsonb, text, text, text, integer, timestamptz, bigint[], integer, text[])
is 'Add a job, optionally after others; part of the caller''s transaction.';
