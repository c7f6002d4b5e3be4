-- _now() → the queue's time: the wall clock of the database server, not of the transaction.
--
-- Contract
--   * The only clock. Tests replace this function in their own databases; nothing else moves it.
--   * No search_path is pinned: it names nothing that one could replace, and so the planner puts
--     it into the statements that use it. A call would cost each of them 20 us.
create or replace function moonmind_queue._now()
returns timestamptz
language sql
as $$
    select clock_timestamp();
$$;

comment on function moonmind_queue._now() is 'The one clock of the queue.';
