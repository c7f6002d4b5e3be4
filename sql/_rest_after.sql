-- _rest_after(rows) → how long to leave it after a look that walked over so many rows; null where it was cheap.
--
-- Contract
--   * While another session keeps dead rows from being cleaned up, a look at few rows walks over all
--     that ever were. Each costs up to 0.1 us: after this rest a twentieth of the time goes into looking.
--   * Counted and not timed, so that a slow moment of the machine changes nothing.
create or replace function moonmind_queue._rest_after(p_rows bigint)
returns interval
language sql
immutable
as $$
    select case when p_rows >= 10000 then least(p_rows * interval '2 us', interval '30 s') end;
$$;

comment on function moonmind_queue._rest_after(bigint) is 'The rest after a look that was dear.';
