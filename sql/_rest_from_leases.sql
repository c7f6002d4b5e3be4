-- _rest_from_leases(now, pages) → void; this session has looked at all leases, over so many pages of the table.
--
-- Three of them cost as much as a page of an index with what it leads to.
create or replace function moonmind_queue._rest_from_leases(p_now timestamptz, p_pages bigint)
returns void
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_rest constant interval := _rest_after(p_pages / 3);
begin
    if v_rest is not null then
        perform set_config('moonmind_queue.leases', (p_now + v_rest)::text, false);
    end if;
end;
$$;

comment on function moonmind_queue._rest_from_leases(timestamptz, bigint) is 'Do not look at all leases again too soon.';
