-- _event_writers() → the transactions, of this database, that may have written events and have not ended.
create or replace function moonmind_queue._event_writers()
returns text[]
language sql
volatile
set search_path = moonmind_queue, pg_temp
as $$
    select coalesce(array_agg(distinct virtualtransaction), '{}')
    from pg_locks
    where locktype = 'relation'
      and database = (select oid from pg_database where datname = current_database())
      and relation = 'moonmind_queue.event'::regclass
      and mode = 'RowExclusiveLock'
      and granted;
$$;

comment on function moonmind_queue._event_writers() is 'Who may be writing events.';
