-- _rest_after(pages) → how long to leave it after a look that walked over so many pages of an index; null where it was cheap.
--
-- Contract
--   * While another session keeps dead rows from being cleaned up, a look at few rows walks over all
--     that ever were. A page costs some 20 us with what it leads to: after this rest a twentieth of
--     the time is spent on looking.
--   * Counted and not timed, so that a slow moment of the machine changes nothing.
create or replace function moonmind_queue._rest_after(p_pages bigint)
returns interval
language sql
immutable
set search_path = moonmind_queue, pg_temp
as $$
    select case when p_pages > 500
        then least(greatest(p_pages * interval '0.4 ms', interval '1 s'), interval '30 s') end;
$$;

comment on function moonmind_queue._rest_after(bigint) is 'The rest after a look that was dear.';
