-- held_by(worker) → the jobs that a worker holds, with the tokens of its leases.
--
-- For a worker that has forgotten its tokens, as an agent's tool does between two sessions. A worker
-- that knows its tokens never asks: what it did not claim itself it must not go on with.
--
-- Errors    22023 a worker without a usable name; MQ004 one that the login's policy does not list.
create or replace function moonmind_queue.held_by(p_worker text)
returns table (job_id bigint, token bigint, attempt integer, expires_at timestamptz, started boolean)
language plpgsql
stable
security definer
set search_path = moonmind_queue, pg_temp
as $$
#variable_conflict use_column
begin
    perform _check_worker(p_worker, _policy());
    return query
    select job_id, token, attempt, expires_at, started
    from lease
    where worker = p_worker
    order by job_id;
end;
$$;

comment on function moonmind_queue.held_by(text) is 'The leases of a worker.';
