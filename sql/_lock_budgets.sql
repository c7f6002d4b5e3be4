-- _lock_budgets() → void; nobody else reckons what is used up until this transaction ends.
--
-- Two that add to a budget at once would each see too little of it.
-- Locks     an advisory lock, before any row that tells what was used.
create or replace function moonmind_queue._lock_budgets()
returns void
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
begin
    perform pg_advisory_xact_lock(hashtextextended('moonmind_queue.budget', 0));
end;
$$;

comment on function moonmind_queue._lock_budgets() is 'Reckon alone.';
