-- drop_failure_rule(name) → whether there was such a rule; what it named is retried from now on, unless another rule says more.
create or replace function moonmind_queue.drop_failure_rule(p_name text)
returns boolean
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
begin
    delete from failure_rule where name = p_name;
    return found;
end;
$$;

comment on function moonmind_queue.drop_failure_rule(text) is 'Take a rule of failures away.';
