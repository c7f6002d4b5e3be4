-- _lock_schedule(name) → its row, locked.
--
-- Errors    MQ005 no such schedule.
create or replace function moonmind_queue._lock_schedule(p_name text)
returns moonmind_queue.schedule
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_schedule schedule;
begin
    select * into v_schedule from schedule where name = p_name for update;
    if not found then
        raise exception 'schedule "%" does not exist', left(p_name, 100) using errcode = 'MQ005';
    end if;
    return v_schedule;
end;
$$;

comment on function moonmind_queue._lock_schedule(text) is 'Lock a schedule, or raise.';
