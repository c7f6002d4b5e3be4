-- _check_no_circle(tasks) → void, or an error: tasks that depend on each other in a circle.
--
-- Errors    22023 with the path, for example: a -> b -> a.
create or replace function moonmind_queue._check_no_circle(p_tasks jsonb)
returns void
language plpgsql
immutable
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_ids      text[];
    v_places   jsonb;      -- id → its place
    v_children integer[];  -- edge → the task, and
    v_parents  integer[];  --        the task that it needs
begin
    select coalesce(array_agg(task ->> 'id' order by place), '{}'), jsonb_object_agg(task ->> 'id', place)
    into v_ids, v_places
    from jsonb_array_elements(p_tasks) with ordinality as element (task, place);
    select array_agg(place order by place, parent), array_agg(parent order by place, parent)
    into v_children, v_parents
    from jsonb_array_elements(p_tasks) with ordinality as element (task, place)
    cross join lateral (
        select distinct (v_places ->> need)::integer as parent
        from jsonb_array_elements_text(coalesce(task -> 'deps', '[]')) as need
    ) as needed;
    perform _order_jobs(v_ids, v_children, v_parents);
end;
$$;

comment on function moonmind_queue._check_no_circle(jsonb) is 'Refuse tasks that depend on each other in a circle.';
