-- resume(agent) → whether anything was paused; ends the pauses and cooldowns of this agent, or the one of all (null).
--
-- Locks     the rows in pause.
-- Notifies  moonmind_queue, of the agents that are free now.
create or replace function moonmind_queue.resume(p_agent text default null)
returns boolean
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_any boolean;
begin
    with ended as (
        delete from pause where agent = coalesce(p_agent, '*') returning until
    )
    select bool_or(until is null or until > _now()) into v_any from ended;
    perform _ring(case
        when p_agent is null then array(select distinct agent from lane)
        else array[p_agent]
    end);
    return coalesce(v_any, false);
end;
$$;

comment on function moonmind_queue.resume(text) is 'Let jobs of an agent be claimed again.';
