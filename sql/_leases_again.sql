-- _leases_again(now) → when this session is to look at all leases again; null: at once.
--
-- A time further off than 30 s was set before the clock went back.
create or replace function moonmind_queue._leases_again(p_now timestamptz)
returns timestamptz
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_again constant timestamptz := nullif(current_setting('moonmind_queue.leases', true), '');
begin
    return case when v_again > p_now and v_again <= p_now + interval '30 s' then v_again end;
end;
$$;

comment on function moonmind_queue._leases_again(timestamptz) is 'When this session looks at all leases again.';
