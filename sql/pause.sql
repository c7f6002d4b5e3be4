-- pause(agent, reason, until) → void; no job of this agent (null: of any) is claimed until resumed, or until then.
--
-- Contract
--   * Jobs that are running go on. Lost leases and expired jobs stay as they are meanwhile.
--   * Again: the new reason and end replace the old.
-- Locks     its row in pause.
-- Errors    22023 until not in the future, an agent that cannot be, reason above 64 KiB.
create or replace function moonmind_queue.pause(
    p_agent  text        default null,
    p_reason text        default null,
    p_until  timestamptz default null
)
returns void
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
begin
    if p_until <= _now() then
        raise exception 'a pause until % would be over already', p_until
            using errcode = 'invalid_parameter_value';
    end if;
    if p_agent = '' or length(p_agent) > 200 then
        raise exception 'an agent has a name of at most 200 characters, not %', left(p_agent, 100)
            using errcode = 'invalid_parameter_value';
    end if;
    perform _check_text('reason', p_reason);
    perform _pause(coalesce(p_agent, '*'), 'operator', coalesce(p_reason, ''), p_until, session_user);
end;
$$;

comment on function moonmind_queue.pause(text, text, timestamptz) is 'Let no more jobs of an agent be claimed.';
