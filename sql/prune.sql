-- prune(older_than, limit) → how many jobs were deleted, with their history, logs and artifacts.
--
-- Contract
--   * Only final jobs that ended longer ago, and only once no other job needs them: of a chain
--     the last job goes first. A task that its DAG has stays, or seeding would run it again.
--   * At most limit a call, so that no transaction grows long; call again until it returns 0.
-- Locks     the jobs, skip locked.
-- Errors    22023 a negative age or a limit below 1.
create or replace function moonmind_queue.prune(p_older_than interval, p_limit integer default 1000)
returns integer
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_before constant timestamptz := _now() - p_older_than;
    v_total  integer := 0;
    v_ids    bigint[];
begin
    if p_older_than is null or p_older_than < interval '0' or coalesce(p_limit, 0) < 1 then
        raise exception 'prune needs an age of at least 0 and a limit of at least 1, not % and %', p_older_than, p_limit
            using errcode = 'invalid_parameter_value';
    end if;
    while v_total < p_limit loop
        v_ids := array(
            select id
            from job
            where finished_at < v_before
              and not exists (select from dependency where needs_job_id = job.id)
              and not exists (select from dag_task where job_id = job.id and not gone)
            order by id
            limit p_limit - v_total
            for update skip locked
        );
        -- Locked, none can be needed by a new job any more; one may have come while we looked.
        v_ids := array(
            select id
            from unnest(v_ids) as id
            where not exists (select from dependency where needs_job_id = id)
        );
        exit when v_ids = '{}';
        delete from artifact_chunk where artifact_id in (select id from artifact where job_id = any (v_ids));
        delete from artifact where job_id = any (v_ids);
        delete from log_chunk where job_id = any (v_ids);
        delete from event where job_id = any (v_ids);
        delete from dependency where job_id = any (v_ids);
        delete from dag_task where job_id = any (v_ids);
        delete from message where job_id = any (v_ids);
        delete from publication where job_id = any (v_ids);
        delete from usage where job_id = any (v_ids);
        delete from usage_thread where job_id = any (v_ids);
        delete from follow_up where job_id = any (v_ids);
        delete from origin where job_id = any (v_ids);
        delete from expiry
        using job
        where job.id = any (v_ids) and expiry.expires_at = job.expires_at and expiry.job_id = job.id;
        delete from job where id = any (v_ids);
        v_total := v_total + cardinality(v_ids);
    end loop;
    return v_total;
end;
$$;

comment on function moonmind_queue.prune(interval, integer) is 'Delete final jobs older than an age.';
