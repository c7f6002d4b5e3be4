-- _number_jobs(jobs) → place in the call, key, the id that the job has or will have, whether it is new.
--
-- Contract
--   * A key that a job has already, or that stood earlier in the call, brings that job's id; only
--     the first place of a key that no job has is new.
--   * A new job's id is above those of all that it needs, so that id order is a lock order.
-- Errors    22023 circle (with its path).
create or replace function moonmind_queue._number_jobs(p_jobs jsonb)
returns table (place bigint, key text, id bigint, is_new boolean)
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
#variable_conflict use_column
declare
    v_keys     text[];     -- by place
    v_first    integer[];  -- place → where its key stands first; itself without a key
    v_known    bigint[];   -- place → the job that has its key already
    v_made     jsonb;      -- key of a new job → its place; a join would be guessed to be small
    v_children integer[];  -- edge → place of a new job, and
    v_parents  integer[];  --        place of the new job that it needs
begin
    if not jsonb_path_exists(p_jobs, '$[*].key ? (@ != null)') then
        return query
        select place, null::text, nextval('moonmind_queue.job_id_seq'), true
        from generate_series(1, jsonb_array_length(p_jobs)::bigint) as place;
        return;
    end if;

    select array_agg(given.key order by place), array_agg(first order by place), array_agg(job.id order by place)
    into v_keys, v_first, v_known
    from (
        select place, key, case when key is null then place else min(place) over (partition by key) end as first
        from jsonb_array_elements(p_jobs) with ordinality as element (job, place),
             lateral (select job ->> 'key') as named (key)
    ) as given
    left join job on job.key = given.key;

    select jsonb_object_agg(key, place) into v_made
    from unnest(v_keys, v_first, v_known) with ordinality as given (key, first, known, place)
    where key is not null and first = place and known is null;

    select array_agg(place order by place, parent), array_agg(parent order by place, parent)
    into v_children, v_parents
    from jsonb_array_elements(p_jobs) with ordinality as element (job, place)
    cross join lateral jsonb_array_elements(
        case jsonb_typeof(job -> 'after') when 'array' then job -> 'after' else '[]' end
    ) as need
    cross join lateral (
        select (v_made ->> (need #>> '{}'))::integer where jsonb_typeof(need) = 'string'
    ) as needed (parent)
    where parent is not null and v_first[place] = place and v_known[place] is null;

    return query
    with made as materialized (
        select place, nextval('moonmind_queue.job_id_seq') as id
        from (
            select place
            from unnest(_order_jobs(
                array(select coalesce(key, 'job ' || place) from unnest(v_keys) with ordinality as given (key, place) order by place),
                v_children, v_parents
            )) with ordinality as ordered (place, turn)
            where v_first[place] = place and v_known[place] is null
            order by turn
        ) as ordered
    )
    select given.place, given.key, coalesce(given.known, made.id), given.known is null and given.first = given.place
    from unnest(v_keys, v_first, v_known) with ordinality as given (key, first, known, place)
    left join made on made.place = given.first;
end;
$$;

comment on function moonmind_queue._number_jobs(jsonb) is 'Give every job of a call its id.';
