-- _ring(agents) → void; wakes whoever sleeps for one of these agents.
--
-- Contract
--   * Who was notified sleeps no longer: only the first producer after a doze() pays for a notification.
--   * No wake-up is lost: whoever falls asleep while we look is told by next_due() to look again
--     until every transaction that was under way then has ended, ours among them. A transaction
--     with one snapshot for all its statements may not see who sleeps, and always notifies.
--   * Waits for nobody: a sleeper whom an open transaction wakes is notified by us as well, for
--     that one may roll back.
-- Notifies  moonmind_queue, once per agent; PostgreSQL folds equal ones of a transaction.
create or replace function moonmind_queue._ring(p_agents text[])
returns void
language plpgsql
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_rung bigint;  -- a data-modifying WITH has to stand at the top, where PERFORM cannot
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        perform pg_notify('moonmind_queue', agent) from unnest(p_agents) as to_wake (agent);
    elsif exists (select from sleeper where agent = any(p_agents || '*'::text)) then
        with awake as (
            delete from sleeper
            where ctid = any (array(
                select ctid from sleeper where agent = any(p_agents || '*'::text) for update skip locked
            ))
        )
        select count(pg_notify('moonmind_queue', to_wake.agent)) into v_rung
        from unnest(p_agents) as to_wake (agent)
        where exists (select from sleeper where sleeper.agent in (to_wake.agent, '*'));
    end if;
end;
$$;

comment on function moonmind_queue._ring(text[]) is 'Wake the workers of agents.';
