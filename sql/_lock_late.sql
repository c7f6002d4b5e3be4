-- _lock_late(jobs, held) → void; locks jobs that came to depend on those that the caller holds, out of order.
--
-- Contract
--   * Waits only where that is in id order after all: a new job usually has the highest id. Else
--     it takes what nobody else has, and gives the transaction up rather than wait in a circle.
-- Locks     the jobs.
-- Errors    40001 another transaction has one of them; try again.
create or replace function moonmind_queue._lock_late(p_job_ids bigint[], p_held bigint[])
returns void
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
begin
    if not _lock_jobs(p_job_ids, (select min(id) from unnest(p_job_ids) as id) > (select max(id) from unnest(p_held) as id)) then
        raise exception 'another transaction is changing what depends on these jobs; try again'
            using errcode = 'serialization_failure';
    end if;
end;
$$;

comment on function moonmind_queue._lock_late(bigint[], bigint[]) is 'Lock dependents that came while locks were waited for.';
