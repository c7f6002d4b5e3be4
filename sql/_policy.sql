-- _policy() → the policy of the role that logged in; null where it has none and may do all its role may.
--
-- Contract
--   * The login, not the role whose rights a function runs with, and not one that was set later.
create or replace function moonmind_queue._policy()
returns moonmind_queue.policy
language plpgsql
stable
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_policy policy;
begin
    select * into v_policy from policy where role = session_user;
    return v_policy;
end;
$$;

comment on function moonmind_queue._policy() is 'The policy of the login.';
