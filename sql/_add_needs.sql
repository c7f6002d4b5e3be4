-- _add_needs(jobs, keys, ids, made) → void; writes the dependencies of the jobs that a call made.
--
-- keys and ids are by place in the call; made are the ids of the new jobs.
--
-- Locks     jobs of earlier calls that are needed, shared, in id order.
-- Errors    22023 unknown dependency.
create or replace function moonmind_queue._add_needs(
    p_jobs jsonb,
    p_keys text[],
    p_ids  bigint[],
    p_made bigint[]
)
returns void
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_child bigint[];  -- edge → the job, and
    v_needs bigint[];  --        the job that it needs
    v_fault text;
begin
    with edge as materialized (
        select place::integer as place, p_ids[place] as child, need #>> '{}' as need,
               jsonb_typeof(need) as type
        from jsonb_array_elements(p_jobs) with ordinality as given (job, place)
        cross join lateral jsonb_array_elements(
            case jsonb_typeof(job -> 'after') when 'array' then job -> 'after' else '[]' end
        ) as need
    ),
    made as materialized (  -- each at its first place: what a repeated key says is not heard
        select numbered.id, numbered.key, min(numbered.place) as place
        from unnest(p_ids, p_keys) with ordinality as numbered (id, key, place)
        join unnest(p_made) as made (id) using (id)
        group by numbered.id, numbered.key
    ),
    resolved as (
        select edge.place, edge.child, edge.need,
               coalesce(made.id, by_key.id, case when guessed.id is null then by_id.id end) as needs
        from edge
        join made as own on own.place = edge.place
        left join made on edge.type = 'string' and made.key = edge.need
        left join job as by_key on edge.type = 'string' and by_key.key = edge.need
        left join job as by_id
            on edge.type = 'number' and by_id.id = (case edge.type when 'number' then edge.need end)::bigint
        -- An id that this call has only just given was guessed, and could close a circle.
        left join made as guessed on guessed.id = by_id.id
    )
    select array_agg(child), array_agg(needs),
           (array_agg(format('job %s depends on unknown job %s', coalesce(left(p_keys[place], 100), place::text), coalesce(left(need, 100), 'null')))
               filter (where needs is null))[1]
    into v_child, v_needs, v_fault
    from resolved;
    if v_fault is not null then
        raise exception '%', v_fault using errcode = 'invalid_parameter_value';
    end if;
    perform _lock_needs(array(select unnest(v_needs) except select unnest(p_made)));
    insert into dependency (job_id, needs_job_id)
    select distinct child, needs from unnest(v_child, v_needs) as edge (child, needs);
    update job
    set state = 'waiting', unmet = waits.number
    from (
        select d.job_id, count(*) as number
        from dependency d
        join job child on child.id = d.job_id
        join job parent on parent.id = d.needs_job_id
        where d.job_id = any (p_made) and not _is_met(parent.state, child.on_dependency_failure)
        group by d.job_id
    ) as waits
    where job.id = waits.job_id;
end;
$$;

comment on function moonmind_queue._add_needs(jsonb, text[], bigint[], bigint[]) is 'Write the dependencies of new jobs.';
