-- _follow_ups(jobs) → the jobs that these list in on_success and on_failure, and those in turn.
--
-- Contract
--   * place is of the job in the array, depth counts from 1, event is success or failure, number
--     is the place in that list. Of levels only the first six are looked at: five are allowed.
create or replace function moonmind_queue._follow_ups(p_jobs jsonb)
returns table (place bigint, depth integer, event text, number bigint, job jsonb)
language sql
immutable
set search_path = moonmind_queue, pg_temp
as $$
    with recursive listed as (
        select place, 0 as depth, null::text as event, null::bigint as number, job
        from jsonb_array_elements(p_jobs) with ordinality as given (job, place)
        union all
        select listed.place, listed.depth + 1, lists.event, followers.number, followers.job
        from listed
        cross join lateral (
            values ('success', listed.job -> 'on_success'), ('failure', listed.job -> 'on_failure')
        ) as lists (event, jobs)
        cross join lateral jsonb_array_elements(
            case jsonb_typeof(lists.jobs) when 'array' then lists.jobs else '[]' end
        ) with ordinality as followers (job, number)
        where listed.depth < 6
    )
    select place, depth, event, number, job from listed where depth > 0 order by place, depth;
$$;

comment on function moonmind_queue._follow_ups(jsonb) is 'All that jobs may bring when they end.';
