-- complete(job, token, result) → void; the job has succeeded.
--
-- Contract
--   * As complete_many() for one job, but a lost lease is an error.
-- Locks     the job, its lease, its dependents in id order.
-- Errors    MQ001, MQ002, MQ004; 23514 a result that is not an object.
create or replace function moonmind_queue.complete(p_job_id bigint, p_token bigint, p_result jsonb default '{}')
returns void
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
begin
    perform from complete_many(array[p_job_id], array[p_token], array[p_result]);
    if not found then
        perform _lock_lease(p_job_id, p_token);  -- raises, and knows why
    end if;
end;
$$;

comment on function moonmind_queue.complete(bigint, bigint, jsonb) is 'End a leased job well.';
