-- _rank(priority, run_at) → the place of a job in its lane, lowest first.
--
-- run_at in microseconds, less an hour for each level of priority: an hour of waiting outweighs one
-- level. So the order of two jobs never changes, and no job starves behind an endless stream of
-- more urgent ones. No search_path is pinned: it names nothing that one could replace, and so the
-- planner puts it into the statements that use it.
create or replace function moonmind_queue._rank(p_priority integer, p_run_at timestamptz)
returns bigint
language sql
stable
as $$
    select (date_part('epoch', p_run_at) * 1000000)::bigint - p_priority::bigint * 3600000000;
$$;

comment on function moonmind_queue._rank(integer, timestamptz) is 'The order in which jobs are claimed.';
