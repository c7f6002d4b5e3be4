-- _follow_up(jobs, event) → void; the jobs have ended with success or failure: what they list is enqueued.
--
-- Contract
--   * Once for each event: a job that is retried and ends the same way again brings nothing new.
--   * With the right of whoever enqueued the job, which was looked at then, and never refused.
-- Locks     the jobs are locked by the caller; keys in their order.
-- Notifies  moonmind_queue
-- Events    created
create or replace function moonmind_queue._follow_up(p_job_ids bigint[], p_event text)
returns void
language plpgsql
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_jobs jsonb;
    v_from bigint[];
    v_made bigint[];
begin
    select jsonb_agg(job || jsonb_build_object('made_by', job_id) order by job_id, number),
           array_agg(job_id order by job_id, number)
    into v_jobs, v_from
    from follow_up
    where job_id = any (p_job_ids) and event = p_event and made_job_id is null;
    if v_jobs is null then
        return;
    end if;
    v_made := array(
        select id from _add_jobs(v_jobs, false, p_event) with ordinality as made (id, place) order by place
    );

    update follow_up
    set made_job_id = made.id
    from (
        select job_id, v_made[row_number() over (order by job_id, number)] as id, number
        from follow_up
        where job_id = any (p_job_ids) and event = p_event and made_job_id is null
    ) as made
    where follow_up.job_id = made.job_id and follow_up.event = p_event and follow_up.number = made.number;
    insert into enqueued (role, job_id, at)
    select follow_up.role, made_job_id, _now()
    from follow_up
    join allowance on allowance.role = follow_up.role
    where job_id = any (v_from) and event = p_event and made_job_id = any (v_made)
    on conflict do nothing;
end;
$$;

comment on function moonmind_queue._follow_up(bigint[], text) is 'Enqueue what jobs that have ended list.';
