-- _release_dependents(jobs) → void; the jobs have succeeded: queue who waited for the last of them.
--
-- Contract
--   * A waiting dependent counts one unmet dependency less for each; at none it is queued.
-- Locks     every dependent in id order, whatever its state: one that is just coming back to
--           waiting counts this success itself or is counted here, never neither. The caller
--           has locked those it saw before it held these jobs; only now can none be added.
-- Events    ready
create or replace function moonmind_queue._release_dependents(p_job_ids bigint[])
returns void
language plpgsql
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
    v_now  constant timestamptz := _now();
    v_free bigint[];
begin
    perform from job
    where id = any (array(select job_id from dependency where needs_job_id = any (p_job_ids)))
    order by id
    for update;
    if not found then
        return;
    end if;

    with met as (
        select job_id, count(*) as number
        from dependency
        where needs_job_id = any (p_job_ids)
        group by job_id
    ),
    counted as (
        update job
        set unmet = unmet - number,
            state = case when unmet = number then 'queued' else 'waiting' end,
            event_seq = event_seq + (unmet = number)::integer,
            updated_at = v_now
        from met
        where job.id = met.job_id and job.state = 'waiting'
        returning id, state, event_seq
    ),
    logged as (
        insert into event (job_id, seq, at, type, message)
        select id, event_seq, v_now, 'ready', 'every dependency has succeeded'
        from counted
        where state = 'queued'
    )
    select array_agg(id) into v_free from counted where state = 'queued';
    if v_free is not null then
        perform _offer(v_free);
    end if;
end;
$$;

comment on function moonmind_queue._release_dependents(bigint[]) is 'Queue the dependents that no longer wait for anything.';
