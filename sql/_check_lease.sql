-- _check_lease(lease) → void, or an error.
--
-- Errors    22023 a lease that would be lost at birth or never.
create or replace function moonmind_queue._check_lease(p_lease interval)
returns void
language plpgsql
immutable
set search_path = moonmind_queue, pg_temp
as $$
begin
    if p_lease is null or p_lease <= interval '0' or p_lease > interval '1 day' then
        raise exception 'a lease must be longer than 0 and at most a day, not %', p_lease
            using errcode = 'invalid_parameter_value';
    end if;
end;
$$;

comment on function moonmind_queue._check_lease(interval) is 'Refuse a lease that cannot work.';
