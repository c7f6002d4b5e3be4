-- _check_lease(worker, lease) → void, or an error.
--
-- Errors    22023 a worker without a name or with one too long to notify, or a lease that would be lost at birth or never.
create or replace function moonmind_queue._check_lease(p_worker text, p_lease interval)
returns void
language plpgsql
immutable
set search_path = moonmind_queue, pg_temp
as $$
begin
    if coalesce(p_worker, '') !~ '\S' or length(p_worker) > 200 then
        raise exception 'a lease needs the name of its worker, of at most 200 characters'
            using errcode = 'invalid_parameter_value';
    end if;
    if p_lease is null or p_lease <= interval '0' or p_lease > interval '1 day' then
        raise exception 'a lease must be longer than 0 and at most a day, not %', p_lease
            using errcode = 'invalid_parameter_value';
    end if;
end;
$$;

comment on function moonmind_queue._check_lease(text, interval) is 'Refuse a lease that cannot work.';
