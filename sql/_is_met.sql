-- _is_met(state, policy) → whether a needed job in this state lets the one that needs it run.
--
-- The one place that says so. No search_path is pinned: it names nothing that one could replace,
-- and so the planner puts it into the statements that use it.
create or replace function moonmind_queue._is_met(p_state text, p_on_dependency_failure text)
returns boolean
language sql
immutable
as $$
    select coalesce(
        p_state = 'succeeded'
        or p_on_dependency_failure = 'run' and p_state in ('failed', 'dead_letter', 'cancelled'),
        false
    );
$$;

comment on function moonmind_queue._is_met(text, text) is 'Whether a dependency in this state is met.';
