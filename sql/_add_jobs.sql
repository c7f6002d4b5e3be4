-- _add_jobs(jobs, charged, how) → their ids, in input order; what enqueue_many() promises.
--
-- Contract
--   * Charged: the login's allowance must admit the jobs with all that may follow them, and
--     follow-ups are tried out. Not so for those whose rules somebody else has settled before.
--   * how says what a made_by of a job means: success or failure of that job, its course, a replay.
-- Locks     as enqueue_many(); then the login's row in allowance.
-- Errors    those of enqueue_many().
create or replace function moonmind_queue._add_jobs(
    p_jobs    jsonb,
    p_charged boolean default true,
    p_how     text    default 'job'
)
returns setof bigint
language plpgsql
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_now   constant timestamptz := _now();
    v_lanes integer[];  -- by place in the call, as the next three
    v_keys  text[];
    v_ids   bigint[];   -- what is returned
    v_new   boolean[];
    v_made  bigint[];   -- the jobs that this call makes
    v_from  constant boolean := jsonb_path_exists(p_jobs, '$[*].made_by ? (@ != null)');
begin
    perform _check_jobs(p_jobs);
    v_lanes := _lanes(p_jobs);
    select array_agg(key order by place), array_agg(id order by place), array_agg(is_new order by place)
    into v_keys, v_ids, v_new
    from _number_jobs(p_jobs);

    with made as (
        insert into job (
            id, key, name, agent, kind, state, priority, run_at, max_attempts, payload, created_at,
            updated_at, lane_id, event_seq, timeout, expires_at, on_dependency_failure, rank
        )
        overriding system value
        select id, key, name, coalesce(agent, 'codex'), kind, 'queued', coalesce(priority, 0),
               coalesce(run_at, v_now), coalesce(max_attempts, 3), coalesce(payload, '{}'), v_now, v_now,
               lane_id, 1, timeout, expires_at, coalesce(on_dependency_failure, 'wait'),
               case when isfinite(run_at) is not false
                   then _rank(coalesce(priority, 0), coalesce(run_at, v_now)) else 0 end
        from rows from (
            jsonb_to_recordset(p_jobs) as (
                kind text, payload jsonb, agent text, name text, key text, priority integer,
                run_at timestamptz, max_attempts integer, timeout interval, expires_at timestamptz,
                on_dependency_failure text
            ),
            unnest(v_lanes), unnest(v_ids), unnest(v_new)
        ) as given (
            kind, payload, agent, name, key, priority, run_at, max_attempts, timeout, expires_at,
            on_dependency_failure, lane_id, id, is_new
        )
        where is_new
        order by key
        on conflict (key) where key is not null do nothing
        returning id, expires_at
    ),
    expiring as (
        insert into expiry (expires_at, job_id)
        select expires_at, id from made where expires_at is not null
    )
    select coalesce(array_agg(id), '{}') into v_made from made;

    if array_remove(v_keys, null) <> '{}' then
        -- A transaction that committed one of the keys meanwhile has made that job.
        select array_agg(coalesce(job.id, numbered.id) order by place) into v_ids
        from unnest(v_keys, v_ids) with ordinality as numbered (key, id, place)
        left join job on job.key = numbered.key;
    end if;

    if v_from then
        perform _add_origins(p_jobs, v_ids, v_made, p_how);
    end if;
    insert into event (job_id, seq, at, type, worker, message)
    select id, 1, v_now, 'created', session_user,
           case when v_from then coalesce((select in_words from job_origin where job_id = id), '') else '' end
    from unnest(v_made) as id;
    if jsonb_path_exists(p_jobs, '$[*].after[*]') then
        perform _add_needs(p_jobs, v_keys, v_ids, v_made);
    end if;
    perform _offer(v_made);
    perform _cancel_doomed(v_made);
    if p_charged then
        perform _charge(v_made) from allowance where role = session_user;
    end if;
    if jsonb_path_exists(p_jobs, '$[*] ? (exists (@.on_success[*]) || exists (@.on_failure[*]))') then
        perform _add_follow_ups(p_jobs, v_ids, v_made, p_charged);
    end if;
    return query select unnest(v_ids);
end;
$$;

comment on function moonmind_queue._add_jobs(jsonb, boolean, text)
is 'Add many jobs in one call.';
