-- _task_event(type) → an event in the words of Agentmux.
--
-- The one place that says so. Agentmux has eight words for what happens to a task; what it has none
-- for is progress. Whatever ends an attempt or the task badly is a failure: an attempt that was lost
-- with its worker, one that a person has to look at, and a cancelled task too. No search_path is
-- pinned, for the same reason as in _task_state().
create or replace function moonmind_queue._task_event(p_type text)
returns text
language sql
immutable
as $$
    select case
        when p_type in ('created', 'ready', 'claimed', 'started', 'completed', 'failed', 'released')
            then 'TASK_' || upper(p_type)
        when p_type = 'retried' then 'TASK_READY'
        when p_type = 'unlocked' then 'TASK_RELEASED'
        when p_type in ('expired', 'timed_out', 'blocked', 'cancelled') then 'TASK_FAILED'
        else 'TASK_PROGRESS'
    end;
$$;

comment on function moonmind_queue._task_event(text) is 'How Agentmux calls an event.';
