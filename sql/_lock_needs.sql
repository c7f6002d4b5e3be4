-- _lock_needs(jobs) → void; locks the jobs that new ones need.
--
-- Contract
--   * Until the caller's transaction ends none of them can end, so what it counts stays true.
-- Locks     the jobs, shared, in id order.
-- Errors    22023 when one does not exist or is null.
create or replace function moonmind_queue._lock_needs(p_job_ids bigint[])
returns void
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_missing text;
begin
    perform from job where id = any (p_job_ids) order by id for share;

    select string_agg(coalesce(needs.id::text, 'null'), ', ' order by needs.id) into v_missing
    from unnest(p_job_ids) as needs (id)
    where not exists (select from job where job.id = needs.id);
    if v_missing is not null then
        raise exception 'depends on unknown job %', v_missing
            using errcode = 'invalid_parameter_value';
    end if;
end;
$$;

comment on function moonmind_queue._lock_needs(bigint[]) is 'Lock dependencies shared.';
