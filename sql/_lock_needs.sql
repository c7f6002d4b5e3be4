-- _lock_needs(jobs) → how many of these jobs have not succeeded yet.
--
-- Contract
--   * Until the caller's transaction ends none of them can succeed, so the count stays true.
-- Locks     the jobs, shared, in id order.
-- Errors    22023 when one does not exist or is null.
create or replace function moonmind_queue._lock_needs(p_job_ids bigint[])
returns integer
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_missing text;
    v_unmet   integer;
begin
    perform from job where id = any (p_job_ids) order by id for share;

    select string_agg(coalesce(needs.id::text, 'null'), ', ' order by needs.id) into v_missing
    from unnest(p_job_ids) as needs (id)
    where not exists (select from job where job.id = needs.id);
    if v_missing is not null then
        raise exception 'depends on unknown job %', v_missing
            using errcode = 'invalid_parameter_value';
    end if;

    select count(*) into v_unmet from job where id = any (p_job_ids) and state <> 'succeeded';
    return v_unmet;
end;
$$;

comment on function moonmind_queue._lock_needs(bigint[]) is 'Lock dependencies shared and count the unmet ones.';
