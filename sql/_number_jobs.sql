-- _number_jobs(jobs) → place in the call, key, and the id that the job has or will have.
--
-- Contract
--   * A key that a job has already, or that stood earlier in the call, brings that job's id.
create or replace function moonmind_queue._number_jobs(p_jobs jsonb)
returns table (place bigint, key text, id bigint)
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
#variable_conflict use_column
begin
    if not jsonb_path_exists(p_jobs, '$[*].key ? (@ != null)') then
        return query
        select place, null::text, nextval('moonmind_queue.job_id_seq')
        from generate_series(1, jsonb_array_length(p_jobs)::bigint) as place;
        return;
    end if;
    return query
    with given as materialized (
        select place, job ->> 'key' as key
        from jsonb_array_elements(p_jobs) with ordinality as element (job, place)
    ),
    first as materialized (
        select min(place) as place, key
        from given
        group by key, case when key is null then place end
    ),
    numbered as materialized (
        select first.key, first.place, coalesce(job.id, nextval('moonmind_queue.job_id_seq')) as id
        from (select * from first order by place) as first
        left join job on job.key = first.key
    )
    select given.place, given.key, numbered.id
    from given
    join numbered on numbered.key = given.key or (given.key is null and numbered.place = given.place);
end;
$$;

comment on function moonmind_queue._number_jobs(jsonb) is 'Give every job of a call its id.';
