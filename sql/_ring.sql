-- _ring(agents) → void; notifies whoever sleeps for one of these agents.
--
-- Contract
--   * No wake-up is lost: whoever falls asleep while we look is told by next_due() to look again
--     until every transaction that was under way then has ended, ours among them. A transaction
--     with one snapshot for all its statements may not see who sleeps, and always notifies.
-- Notifies  moonmind_queue, once per agent; PostgreSQL folds equal ones of a transaction.
create or replace function moonmind_queue._ring(p_agents text[])
returns void
language plpgsql
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
begin
    perform pg_notify('moonmind_queue', to_wake.agent)
    from unnest(p_agents) as to_wake (agent)
    where current_setting('transaction_isolation') <> 'read committed'
       or exists (select from sleeper where sleeper.agent in (to_wake.agent, '*'));
end;
$$;

comment on function moonmind_queue._ring(text[]) is 'Wake the workers of agents.';
