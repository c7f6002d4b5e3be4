-- _tell_overspent(job, worker, reason) → void; that a budget is used up, told once since the job was claimed.
--
-- Events    overspent
create or replace function moonmind_queue._tell_overspent(p_job_id bigint, p_worker text, p_reason text)
returns void
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
begin
    if 'overspent' is distinct from (
        select type from event where job_id = p_job_id and type in ('claimed', 'overspent') order by seq desc limit 1
    ) then
        perform _log(p_job_id, 'overspent', p_reason, 'warn', p_worker);
    end if;
end;
$$;

comment on function moonmind_queue._tell_overspent(bigint, text, text) is 'Tell that a budget is used up.';
