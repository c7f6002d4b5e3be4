-- _now() → the queue's time: the wall clock of the database server, not of the transaction.
--
-- Contract
--   * The only clock. Tests replace this function in their own databases; nothing else moves it.
create or replace function moonmind_queue._now()
returns timestamptz
language sql
set search_path = moonmind_queue, pg_temp
as $$
    select clock_timestamp();
$$;

comment on function moonmind_queue._now() is 'The one clock of the queue.';
