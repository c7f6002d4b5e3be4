-- _check_policy(jobs, tokens) → void, or an error: the login's policy must admit every one of these held jobs.
--
-- Called for every write of a lease holder, for a policy may be narrowed while a job is held.
-- Errors    MQ004
create or replace function moonmind_queue._check_policy(p_job_ids bigint[], p_tokens bigint[])
returns void
language plpgsql
stable
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_refused constant bigint[] := _not_admitted(p_job_ids, p_tokens);
begin
    if v_refused <> '{}' then
        raise exception 'the policy of % does not admit job %', session_user, v_refused[1] using errcode = 'MQ004';
    end if;
end;
$$;

comment on function moonmind_queue._check_policy(bigint[], bigint[]) is 'Refuse jobs that the login may not hold.';
