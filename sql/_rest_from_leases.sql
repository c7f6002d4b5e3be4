-- _rest_from_leases(now) → void; this session has looked at all leases, and nothing is left to take back.
--
-- Rows alive or dead are reckoned from the size of the table, for a look reads all of it.
create or replace function moonmind_queue._rest_from_leases(p_now timestamptz)
returns void
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
declare
    c_row  constant integer  := 160;  -- bytes
    v_rest constant interval := _rest_after(pg_relation_size('lease') / c_row);
begin
    if v_rest is not null then
        perform set_config('moonmind_queue.leases', (p_now + v_rest)::text, false);
    end if;
end;
$$;

comment on function moonmind_queue._rest_from_leases(timestamptz) is 'Do not look at all leases again too soon.';
