-- maintain(limit) → what was tidied up and how many of each; no row where there was nothing to do.
--
-- Contract
--   * jobs: at most limit final jobs that ended longer ago than retention says, as prune() does;
--     call again while that many went. A live job stays with its whole history, however old.
--   * workers: processes that stopped or were last seen a week ago. sleepers: of processes that
--     stopped or were not seen for an hour. pauses: that were over a day ago.
--   * partitions dropped, partitions made: months of the history and the logs. Nothing waits behind this for
--     longer than 50 ms; where a reader is in the way, the next call will do it.
--   * One at a time: while another session is at it, this returns nothing at once. Workers call it
--     hourly, anybody may. Commit at once: what was dropped or made stays locked until then.
-- Locks     jobs, skip locked; then the partitioned tables, exclusively, for 50 ms at most.
-- Errors    22023 a limit below 1.
create or replace function moonmind_queue.maintain(p_limit integer default 1000)
returns table (what text, count bigint)
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_tables constant text[] := '{event,log_chunk}';  -- those that are partitioned by their column at
    v_now    constant timestamptz := _now();
    v_keep   constant interval := (select keep from retention where what = 'job');
    v_jobs   bigint := 0;
begin
    if coalesce(p_limit, 0) < 1 then
        raise exception 'maintain needs a limit of at least 1, not %', p_limit
            using errcode = 'invalid_parameter_value';
    end if;
    if not pg_try_advisory_xact_lock(hashtextextended('moonmind_queue.maintain', 0)) then
        return;
    end if;
    -- prune() looks at every job; the first one tells when that is not needed, or else the index on created_at.
    if (select created_at from job order by id limit 1) < v_now - v_keep and exists (
        select from job
        where created_at < v_now - v_keep and finished_at < v_now - v_keep
          and not exists (select from dependency where needs_job_id = job.id)
          and not exists (select from dag_task where job_id = job.id and not gone)
    ) then
        v_jobs := prune(v_keep, p_limit);
    end if;

    return query
    with gone_worker as (
        delete from worker where coalesce(stopped_at, seen_at) < v_now - interval '7 days' returning id
    ),
    gone_sleeper as (
        delete from sleeper
        where ctid = any (array(
            select ctid from sleeper
            where not exists (
                select from worker
                where id = worker_id and stopped_at is null and seen_at >= v_now - interval '1 hour'
            )
            for update skip locked
        ))
        returning worker_id
    ),
    gone_pause as (
        delete from pause where until < v_now - interval '1 day' returning agent
    )
    select done.*
    from (
        values ('jobs', v_jobs),
               ('workers', (select count(*) from gone_worker)),
               ('sleepers', (select count(*) from gone_sleeper)),
               ('pauses', (select count(*) from gone_pause))
    ) as done (what, number)
    where number > 0;

    -- Last: what these lock stays locked until the transaction ends.
    return query
    with dropped as materialized (select sum(_drop_months(name)) as number from unnest(v_tables) as name),
         made as materialized (select sum(_make_months(name)) as number from unnest(v_tables) as name)
    select done.*
    from (
        select 'partitions dropped', number from dropped
        union all
        select 'partitions made', number from made
    ) as done (what, number)
    where number > 0;
end;
$$;

comment on function moonmind_queue.maintain(integer) is 'Delete what is too old, make and drop partitions; workers do this hourly.';
