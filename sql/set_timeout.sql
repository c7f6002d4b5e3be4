-- set_timeout(kind, timeout) → void; how long an attempt at a job of this kind may take that does not say so itself.
--
-- Contract
--   * Kind * serves every kind without a row; it can be changed, not taken away (null).
--   * Counts for attempts claimed from now on.
-- Errors    22023 no kind, not between 0 and a year, null for *.
create or replace function moonmind_queue.set_timeout(p_kind text, p_timeout interval)
returns void
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
begin
    if p_kind = '*' and p_timeout is null then
        raise exception 'the timeout of * can be changed, not taken away' using errcode = 'invalid_parameter_value';
    end if;
    if coalesce(p_kind, '') = '' or length(p_kind) > 200
        or p_timeout <= interval '0' or p_timeout > interval '1 year'
    then
        raise exception 'a timeout needs a kind and must be longer than 0 and at most a year, not % and %',
            left(p_kind, 200), p_timeout
            using errcode = 'invalid_parameter_value';
    end if;
    if p_timeout is null then
        delete from run_timeout where kind = p_kind;
    else
        insert into run_timeout (kind, timeout)
        values (p_kind, p_timeout)
        on conflict (kind) do update set timeout = excluded.timeout;
    end if;
end;
$$;

comment on function moonmind_queue.set_timeout(text, interval) is 'Say how long attempts at a kind of job may take.';
