-- _check_worker(worker, policy) → void, or an error: the name is one that can be notified and that the policy lets it use.
--
-- Errors    22023 blank or above 200 characters; MQ004 a name that the login's policy does not list.
create or replace function moonmind_queue._check_worker(p_worker text, p_policy moonmind_queue.policy)
returns void
language plpgsql
stable
set search_path = moonmind_queue, pg_temp
as $$
begin
    if coalesce(p_worker, '') !~ '\S' or length(p_worker) > 200 then
        raise exception 'a worker needs a name of at most 200 characters'
            using errcode = 'invalid_parameter_value';
    end if;
    if p_worker <> all (p_policy.workers) then
        raise exception 'the policy of % does not let it work as %', session_user, p_worker using errcode = 'MQ004';
    end if;
end;
$$;

comment on function moonmind_queue._check_worker(text, moonmind_queue.policy) is 'Refuse the name of a worker that cannot be used.';
