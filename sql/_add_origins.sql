-- _add_origins(jobs, ids, made, how) → void; notes from which job the new ones came, if from any.
--
-- Contract
--   * ids are the jobs' by place, made those that are new. The depth counts on from that job's;
--     a replay is as deep as what it replays.
-- Errors    22023 made_by names no job.
create or replace function moonmind_queue._add_origins(p_jobs jsonb, p_ids bigint[], p_made bigint[], p_how text)
returns void
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_unknown bigint;
begin
    select (job ->> 'made_by')::bigint into v_unknown
    from jsonb_array_elements(p_jobs) as job
    where job ->> 'made_by' is not null
      and not exists (select from job as made where made.id = (job ->> 'made_by')::bigint)
    limit 1;
    if found then
        raise exception 'made_by names job %, which does not exist', v_unknown using errcode = 'invalid_parameter_value';
    end if;

    insert into origin (job_id, from_job_id, how, depth)
    select p_ids[place], named.id, p_how, coalesce(source.depth, 0) + case p_how when 'replay' then 0 else 1 end
    from jsonb_array_elements(p_jobs) with ordinality as given (job, place)
    cross join lateral (select (job ->> 'made_by')::bigint) as named (id)
    left join origin as source on source.job_id = named.id
    where named.id is not null and p_ids[place] = any (p_made)
    order by place
    on conflict do nothing;  -- a key may stand twice in one call; the first is the job
end;
$$;

comment on function moonmind_queue._add_origins(jsonb, bigint[], bigint[], text) is 'Note from which job others came.';
