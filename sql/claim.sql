-- claim(worker, agents, kinds, capabilities, limit, lease, start, job_ids) → the jobs now leased, most urgent first.
--
-- Contract
--   * Takes only jobs that are due, of the given agents and kinds (null: all) that are not paused,
--     whose required capabilities are all offered, whose dependencies are all met, within the
--     limits of run_limit and the policy of the login.
--   * The most urgent first. A claim of 100 or more may be a second late to notice one that came
--     before those of the last claim, or that another claim as large was thought to take; while a
--     session keeps dead rows from being cleaned up any claim may be, and up to 30 seconds.
--   * With job_ids only of these. One that is not claimable now is not returned.
--   * Each job is claimed, or running at once with start; its attempt is one higher and its token
--     new. The pair (id, token) is the lease: every write of the holder carries it.
--   * lasts is how long the lease holds from now: the lease, or what the job's timeout leaves.
--   * Returns fewer than limit, or nothing, when there is not enough work. Never waits: what
--     another session has locked is skipped. Commit soon: what is returned stays locked, and so does
--     a job that another session claimed at that very moment.
--   * Does not touch expired leases; that is reclaim().
-- Locks     rows of job and ready, in claim order, skip locked.
-- Events    claimed, and started with start.
-- Errors    22023 worker blank or above 200 characters, limit below 1, lease not between 0 and a day;
--           MQ004 a worker, agents or kinds that the login's policy does not admit; 25000 limits
--           apply and the transaction is not read committed.
create or replace function moonmind_queue.claim(
    p_worker       text,
    p_agents       text[]   default null,
    p_kinds        text[]   default null,
    p_capabilities text[]   default '{}',
    p_limit        integer  default 1,
    p_lease        interval default interval '120 s',
    p_start        boolean  default false,
    p_job_ids      bigint[] default null
)
returns table (
    id bigint, kind text, agent text, name text, key text, payload jsonb, priority integer,
    attempt integer, max_attempts integer, token bigint, expires_at timestamptz, lasts interval
)
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set enable_hashjoin = off
set max_parallel_workers_per_gather = 0
set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
    c_most   constant integer := 100000;
    v_now    constant timestamptz := _now();
    v_policy constant policy := _policy();
    v_lanes   integer[];
    v_ids     bigint[];
    v_limited boolean;
    v_due     boolean;   -- whether something scheduled is due
    v_default interval;  -- the timeout, when it serves every kind
begin
    perform _check_worker(p_worker, v_policy);
    perform _check_lease(p_lease);
    if coalesce(p_limit, 0) < 1 then
        raise exception 'claim needs a limit of at least 1, not %', p_limit
            using errcode = 'invalid_parameter_value';
    end if;

    v_lanes := _open_lanes(p_agents, p_kinds, p_capabilities, v_policy);
    select exists (select from run_limit),
           exists (
               select from unnest(v_lanes) as lane (id)
               cross join lateral (select from scheduled where lane_id = lane.id and run_at <= v_now limit 1) as due
           ),
           (select max(timeout) from run_timeout having count(*) = 1)
    into v_limited, v_due, v_default;
    if v_due then
        perform _promote(v_lanes, v_now);
    end if;
    if p_job_ids is not null then
        v_ids := _take_these(p_job_ids, v_lanes, least(p_limit, c_most), v_now);
    elsif v_limited then
        v_ids := _take_within_limits(v_lanes, least(p_limit, c_most), v_now);
    else
        v_ids := _take_next(v_lanes, least(p_limit, c_most), v_now);
    end if;
    if v_ids = '{}' then
        return;
    end if;

    return query
    with leased as (
        update job
        set state = case when p_start then 'running' else 'claimed' end,
            attempt = attempt + 1,
            started_at = case when p_start then coalesce(started_at, v_now) else started_at end,
            updated_at = v_now,
            event_seq = event_seq + case when p_start then 2 else 1 end
        where id = any (v_ids)
        returning job.*, nextval('moonmind_queue.lease_token_seq') as token,
        coalesce(timeout, case when v_default is not null then v_default else (
            select run_timeout.timeout from run_timeout where run_timeout.kind in (job.kind, '*')
            order by run_timeout.kind = '*' limit 1
        ) end) as allowed
    ),
    held as (
        insert into lease (job_id, token, attempt, lane_id, expires_at, deadline_at, worker, started)
        select id, token, attempt, lane_id, v_now + least(p_lease, allowed), v_now + allowed, p_worker, p_start
        from leased
    ),
    logged as (
        insert into event (job_id, seq, at, type, worker, data)
        select id, event_seq - case when p_start then 1 else 0 end, v_now, 'claimed', p_worker,
               jsonb_build_object('attempt', attempt, 'lease_until', v_now + least(p_lease, allowed))
        from leased
        union all
        select id, event_seq, v_now, 'started', p_worker, null
        from leased
        where p_start
    )
    select id, kind, agent, name::text, key::text, payload::jsonb, priority, attempt, max_attempts::integer, token,
           v_now + least(p_lease, allowed), least(p_lease, allowed)
    from leased
    order by rank, id;
end;
$$;

comment on function moonmind_queue.claim(text, text[], text[], text[], integer, interval, boolean, bigint[])
is 'Lease up to limit due jobs to a worker.';
