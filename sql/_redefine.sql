-- _redefine(job, wanted, needs, changed) → void; a job is to say from now on what wanted says, and to need these jobs.
--
-- Contract
--   * Its state stays, but that one that is queued may have to wait now and the other way round. An
--     attempt under way keeps what it was given; the next one gets the new.
--   * A job may come to need one with a higher id. Whoever locks dependents out of order because of
--     that does not wait for them: see _lock_late().
-- Locks     the job and the jobs that it needs are locked by the caller.
-- Events    updated
create or replace function moonmind_queue._redefine(
    p_job     moonmind_queue.job,
    p_wanted  jsonb,
    p_needs   bigint[],
    p_changed text[]
)
returns void
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_wanted record;
begin
    select * into v_wanted
    from jsonb_to_record(p_wanted) as (
        name text, agent text, kind text, payload jsonb, priority integer, max_attempts integer,
        timeout interval, capabilities text[]
    );
    if p_job.state = 'queued' then
        perform _withdraw(p_job);
    end if;
    delete from dependency where job_id = p_job.id and needs_job_id <> all (p_needs);
    insert into dependency (job_id, needs_job_id)
    select p_job.id, unnest(p_needs)
    on conflict do nothing;
    update job
    set name = v_wanted.name,
        agent = v_wanted.agent,
        kind = v_wanted.kind,
        payload = v_wanted.payload,
        priority = coalesce(v_wanted.priority, 0),
        max_attempts = coalesce(v_wanted.max_attempts, 3),
        timeout = v_wanted.timeout,
        lane_id = _lane(
            v_wanted.agent, v_wanted.kind, _capabilities(v_wanted.capabilities), v_wanted.payload,
            (select concurrency_key from lane where id = p_job.lane_id)
        ),
        updated_at = _now()
    where id = p_job.id;
    perform _log(p_job.id, 'updated', p_data => jsonb_build_object('changed', to_jsonb(p_changed)));
    if p_job.state in ('waiting', 'queued') then
        perform _queue(p_job.id, p_job.run_at);
    end if;
end;
$$;

comment on function moonmind_queue._redefine(moonmind_queue.job, jsonb, bigint[], text[]) is 'Change what a locked job says and needs.';
