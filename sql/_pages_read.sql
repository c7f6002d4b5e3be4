-- _pages_read() → how many pages of ready this transaction has looked at, in memory or on disk.
--
-- Contract
--   * What a look costs, without a clock: two looks over the same rows count the same.
--   * 0 where the server counts nothing (track_counts).
create or replace function moonmind_queue._pages_read()
returns bigint
language sql
volatile
as $$
    select coalesce(
        pg_catalog.pg_stat_get_xact_blocks_fetched('moonmind_queue.ready'::regclass)
        + pg_catalog.pg_stat_get_xact_blocks_fetched('moonmind_queue.ready_order_idx'::regclass),
        0
    );
$$;

comment on function moonmind_queue._pages_read() is 'How much of ready was looked at so far.';
