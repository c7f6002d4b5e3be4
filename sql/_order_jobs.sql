-- _order_jobs(names, children, parents) → the jobs in an order in which none comes before its needs.
--
-- The jobs of one call are numbered from 1; edge i says that job children[i] needs job parents[i].
--
-- Contract
--   * As they were given when that is such an order already.
--   * Linear in jobs and edges: jobs without an unmet need are taken away until none is left.
-- Errors    22023 with the path, for example: a -> b -> a.
create or replace function moonmind_queue._order_jobs(
    p_names    text[],
    p_children integer[],
    p_parents  integer[]
)
returns integer[]
language plpgsql
immutable
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_count constant integer := cardinality(p_names);
    v_needs integer[] := array_fill(0, array[v_count]);   -- job → needs not taken away yet
    v_first integer[] := array_fill(0, array[v_count]);   -- parent → its first edge
    v_next  integer[] := array_fill(0, array[greatest(cardinality(p_children), 1)]);  -- edge → next edge of the same parent
    v_taken integer[] := '{}';
    v_done  integer := 0;
    v_edge  integer;
    v_job   integer;
    v_path  integer[];
begin
    -- Dependencies on earlier jobs only, the usual case, cannot form a circle.
    if not exists (
        select from unnest(p_children, p_parents) as edge (child, parent) where parent >= child
    ) then
        return array(select generate_series(1, v_count));
    end if;
    for v_edge in 1 .. cardinality(p_children) loop
        v_needs[p_children[v_edge]] := v_needs[p_children[v_edge]] + 1;
        v_next[v_edge] := v_first[p_parents[v_edge]];
        v_first[p_parents[v_edge]] := v_edge;
    end loop;
    for v_job in 1 .. v_count loop
        if v_needs[v_job] = 0 then
            v_taken[cardinality(v_taken) + 1] := v_job;
        end if;
    end loop;
    while v_done < cardinality(v_taken) loop
        v_done := v_done + 1;
        v_edge := v_first[v_taken[v_done]];
        while v_edge > 0 loop
            v_job := p_children[v_edge];
            v_needs[v_job] := v_needs[v_job] - 1;
            if v_needs[v_job] = 0 then
                v_taken[cardinality(v_taken) + 1] := v_job;
            end if;
            v_edge := v_next[v_edge];
        end loop;
    end loop;
    if v_done = v_count then
        return v_taken;
    end if;

    -- Whatever is left needs something that is left: following that leads into a circle.
    select min(i) into v_job from generate_subscripts(v_needs, 1) as i where v_needs[i] > 0;
    loop
        v_path := v_path || v_job;
        select min(parent) into v_job
        from unnest(p_children, p_parents) as edge (child, parent)
        where child = v_path[cardinality(v_path)] and v_needs[parent] > 0;
        exit when v_job = any (v_path);
    end loop;
    v_path := v_path[array_position(v_path, v_job):] || v_job;
    raise exception 'jobs depend on each other in a circle: %',
        (select string_agg(p_names[step.job], ' -> ' order by step.place)
         from unnest(v_path) with ordinality as step (job, place))
        using errcode = 'invalid_parameter_value';
end;
$$;

comment on function moonmind_queue._order_jobs(text[], integer[], integer[]) is 'Order jobs by their needs, or raise when these form a circle.';
