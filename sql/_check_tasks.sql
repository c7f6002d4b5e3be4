-- _check_tasks(tasks) → void, or an error that names the first task at fault by its place and id.
--
-- Contract
--   * Each is an object with an id of its own, of 1 to 500 characters, and an agent. Its deps are
--     ids of tasks beside it, none its own; its payload is an object, whose kind is a string.
-- Errors    22023
create or replace function moonmind_queue._check_tasks(p_tasks jsonb)
returns void
language plpgsql
immutable
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_names constant text[] := '{id,name,agent,deps,payload,priority,max_attempts,timeout,capabilities}';
    v_fault text;
begin
    if jsonb_typeof(p_tasks) is distinct from 'array' then
        raise exception 'a DAG needs a JSON array of tasks' using errcode = 'invalid_parameter_value';
    end if;
    with given as materialized (
        select task, place, task ->> 'id' as id, coalesce(task -> 'deps', '[]') as deps,
               coalesce(task -> 'payload', '{}') as payload
        from jsonb_array_elements(p_tasks) with ordinality as element (task, place)
    ),
    judged as (
        select place, id, case
            when jsonb_typeof(task) <> 'object' then 'is not an object'
            when jsonb_typeof(task -> 'id') is distinct from 'string' or id !~ '\S' or length(id) > 500
                then 'needs an id of 1 to 500 characters'
            when jsonb_typeof(task -> 'agent') is distinct from 'string' then 'needs an agent'
            when jsonb_typeof(deps) <> 'array' then 'deps is not an array'
            when jsonb_typeof(payload) <> 'object' then 'payload is not an object'
            when coalesce(jsonb_typeof(payload -> 'kind'), 'string') <> 'string' then 'payload.kind is not a string'
            when task - v_names <> '{}' then
                'unknown name ' || (select string_agg(quote_ident(left(name, 100)), ', ') from (
                    select name from jsonb_object_keys(task - v_names) as name limit 5) as unknown)
                || '; there are ' || array_to_string(v_names, ', ')
            when place > min(place) over (partition by id) then 'is there twice'
        end as fault
        from given
    ),
    astray as (
        select given.place, given.id, case
            when jsonb_typeof(need) <> 'string' then 'deps has something that is not an id: ' || left(need::text, 100)
            else format('depends on unknown task %s', left(need #>> '{}', 100))
        end as fault
        from given
        cross join lateral jsonb_array_elements(case jsonb_typeof(deps) when 'array' then deps else '[]' end) as need
        where jsonb_typeof(need) <> 'string' or need #>> '{}' not in (select id from given where id is not null)
    )
    select format('task %s%s: %s', place, ' (' || left(id, 100) || ')', fault) into v_fault
    from (select * from judged union all select * from astray) as found
    where fault is not null
    order by place
    limit 1;
    if v_fault is not null then
        raise exception '%', v_fault using errcode = 'invalid_parameter_value';
    end if;
    perform _check_no_circle(p_tasks);
end;
$$;

comment on function moonmind_queue._check_tasks(jsonb) is 'Refuse what seed_dag cannot read.';
