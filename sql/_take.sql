-- _take(lanes, limit, now, floor, skip) → ids of the most urgent jobs of these lanes, locked and
--         out of ready; where to look from next time; and how many rows that are gone it walked over.
--
-- floor has, by lane, the rank below which it does not look: index entries of jobs that were taken
-- stay until vacuum comes, and every claim would walk them all. skip is how many of those above to
-- pass by, because others are about to take them.
--
-- Contract
--   * Merges the heads of the lanes without locking, then locks their jobs in that order and skips
--     what another session holds; looks further down only when that left it with too few.
--   * Who deletes the row of ready has the job: a row that was gone already is no claim.
--   * The dependency subquery guards the claim: no job is taken whose needs are not all met.
--   * Jobs that have become pointless are left for reclaim() to cancel.
--   * gone counts the entries that the index gave and that led to no row: there are many of them
--     where another session keeps them from being cleaned up. 0 with track_counts off.
-- Locks     rows of job, skip locked; then those of ready, which nobody else can hold now.
create or replace function moonmind_queue._take(
    p_lanes     integer[],
    p_limit     integer,
    p_now       timestamptz,
    p_floor     jsonb default '{}',
    p_skip      integer default 0,
    out job_ids bigint[],
    out floor   jsonb,
    out gone    bigint
)
language plpgsql
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set enable_hashjoin = off
set max_parallel_workers_per_gather = 0
set enable_mergejoin = off
set enable_bitmapscan = off
as $$
declare
    v_depth integer := p_limit + 10;
    v_gone  bigint  := pg_stat_get_xact_tuples_returned('ready_order_idx'::regclass)
        - pg_stat_get_xact_tuples_fetched('ready_order_idx'::regclass);
    v_seen  integer;
    v_more  bigint[];
    v_floor jsonb;
begin
    job_ids := '{}';
    floor := p_floor;
    loop
        with heads as materialized (
            select head.*
            from (
                select id, coalesce((p_floor ->> id::text)::bigint, -9223372036854775808) as floor
                from unnest(p_lanes) as id
            ) as lane
            cross join lateral (
                select r.ctid as place, r.rank, r.job_id
                from ready r
                where r.lane_id = lane.id and r.rank >= lane.floor
                order by r.rank, r.job_id
                limit p_skip + v_depth
            ) as head
            order by head.rank, head.job_id
            limit v_depth offset p_skip
        ),
        locked as materialized (  -- in the order of heads, and no more than wanted
            select heads.place
            from heads
            cross join lateral (  -- a fence: from each head to its job, whatever statistics say
                select
                from job
                where job.id = heads.job_id
                  and job.state = 'queued'
                  and (job.expires_at is null or job.expires_at > p_now)
                  and not exists (
                      select from dependency
                      left join job as needed on needed.id = dependency.needs_job_id
                      where dependency.job_id = job.id
                        and not _is_met(needed.state, job.on_dependency_failure)
                  )
                for update of job skip locked
            ) as mine
            limit p_limit - cardinality(job_ids)
        ),
        taken as (
            delete from ready
            where ctid = any (array(select locked.place from locked))
            returning ready.job_id, ready.lane_id, ready.rank
        ),
        reached as (
            select lane_id, array_agg(job_id) as ids, max(rank) as rank from taken group by lane_id
        )
        select (select count(*) from heads),
               array(select unnest(ids) from reached),
               jsonb_object_agg(lane_id, rank),
               pg_stat_get_xact_tuples_returned('ready_order_idx'::regclass)
               - pg_stat_get_xact_tuples_fetched('ready_order_idx'::regclass) - v_gone
        into v_seen, v_more, v_floor, gone
        from reached;

        job_ids := job_ids || v_more;
        floor := floor || coalesce(v_floor, '{}');
        exit when cardinality(job_ids) >= p_limit or v_seen < v_depth;
        v_depth := v_depth * 4;
    end loop;
end;
$$;

comment on function moonmind_queue._take(integer[], integer, timestamptz, jsonb, integer) is 'Lock the most urgent claimable jobs.';
