-- drop_policy(role) → whether there was one; the role may do all that the roles it is in may.
create or replace function moonmind_queue.drop_policy(p_role text)
returns boolean
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
begin
    delete from policy where role = p_role;
    return found;
end;
$$;

comment on function moonmind_queue.drop_policy(text) is 'Take a role''s policy away.';
