-- cool_down(job, token, lasting, reason) → until when; the account behind the holder's agent is used up.
--
-- Contract
--   * The job is handed back at its old place, the attempt does not count, and no job of its agent
--     is claimed for that long: all workers of the agent wait.
--   * A longer cooldown that stands already stays. A cancel request that came first wins.
-- Locks     the job, its lease; the agent's row in pause.
-- Events    released, or cancelled.
-- Errors    MQ001, MQ002, MQ004; 22023 not between 0 and 31 days, reason above 64 KiB.
create or replace function moonmind_queue.cool_down(
    p_job_id  bigint,
    p_token   bigint,
    p_lasting interval,
    p_reason  text default null
)
returns timestamptz
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_until constant timestamptz := _now() + p_lasting;
    v_lease lease;
    v_agent text;
    v_other timestamptz;
begin
    if p_lasting is null or p_lasting <= interval '0' or p_lasting > interval '31 days' then
        raise exception 'a cooldown must be longer than 0 and at most 31 days, not %', p_lasting
            using errcode = 'invalid_parameter_value';
    end if;
    v_lease := _lock_lease(p_job_id, p_token);
    perform release(p_job_id, p_token, p_reason);
    select agent into v_agent from job where id = p_job_id;
    select until into v_other from pause where agent = v_agent and cause = 'cooldown' for update;
    if v_other is null or v_other < v_until then
        perform _pause(v_agent, 'cooldown', coalesce(p_reason, ''), v_until, v_lease.worker);
        return v_until;
    end if;
    return v_other;
end;
$$;

comment on function moonmind_queue.cool_down(bigint, bigint, interval, text)
is 'Hand a job back and let its agent rest: its account is used up for now.';
