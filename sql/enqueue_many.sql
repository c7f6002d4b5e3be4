-- enqueue_many(jobs) → their ids, in input order.
--
-- Contract
--   * jobs is an array of objects with the parameters of enqueue() as names, without p_.
--   * after may hold ids, and keys of this call or of jobs that exist; the order does not matter.
--   * on_success and on_failure may hold jobs that are added when the job has succeeded, or failed
--     for good: once for each event. They are tried out now; five levels, a hundred jobs.
--   * All or nothing. A key that exists, or stands earlier in the call, is that job, unchanged.
-- Locks     keys in their order, then jobs named in after that existed before, shared, in id order;
--           then the login's row in allowance.
-- Notifies  moonmind_queue, once per agent.
-- Events    created, then cancelled where it applies.
-- Errors    22023 not an array of objects, unknown name, unknown dependency, circle (with its path);
--           23514 a value that the table refuses; MQ004 the login's allowance does not admit it.
create or replace function moonmind_queue.enqueue_many(p_jobs jsonb)
returns setof bigint
language sql
security definer
set search_path = moonmind_queue, pg_temp
as $$
    select _add_jobs(p_jobs);
$$;

comment on function moonmind_queue.enqueue_many(jsonb)
is 'Add many jobs in one call, dependencies among them included.';
