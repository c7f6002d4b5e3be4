-- set_retention(keep) → void; how long maintain() keeps jobs that have ended, with their history and artifacts.
--
-- Contract
--   * Null: for ever. Live jobs are kept in any case.
-- Errors    22023 not above 0.
create or replace function moonmind_queue.set_retention(p_keep interval)
returns void
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
begin
    if p_keep <= interval '0' then
        raise exception 'jobs are kept for longer than nothing, or for ever with null, not for %', p_keep
            using errcode = 'invalid_parameter_value';
    end if;
    update retention set keep = p_keep where what = 'job';
end;
$$;

comment on function moonmind_queue.set_retention(interval) is 'Say how long jobs are kept that have ended.';
