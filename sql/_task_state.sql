-- _task_state(state) → the state in the words of Agentmux.
--
-- The one place that says so. Agentmux has no cancelled of its own, so that stays itself. No
-- search_path is pinned: it names nothing that one could replace, and so the planner puts it into
-- the statements that use it.
create or replace function moonmind_queue._task_state(p_state text)
returns text
language sql
immutable
as $$
    select case p_state
        when 'waiting' then 'READY'
        when 'queued' then 'READY'
        when 'succeeded' then 'DONE'
        when 'dead_letter' then 'FAILED'
        else upper(p_state)
    end;
$$;

comment on function moonmind_queue._task_state(text) is 'How Agentmux calls a state.';
