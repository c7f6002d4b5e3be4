-- _check_reader(cursor, limit) → void; refuses what cannot be read on with.
--
-- Errors    22023 not a cursor, a limit below 1; 25000 not read committed, or a standby.
create or replace function moonmind_queue._check_reader(p_cursor text, p_limit integer)
returns void
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
begin
    if coalesce(p_cursor, '') !~ '^\{[\[(\d,)\]]+,\)\}( \d+ [-\d/,]*)?$' then
        raise exception 'event_cursor() or the row before gives a cursor; % is none', coalesce(quote_literal(left(p_cursor, 200)), 'null')
            using errcode = 'invalid_parameter_value';
    end if;
    if coalesce(p_limit, 0) < 1 then
        raise exception 'read_events needs a limit of at least 1, not %', p_limit
            using errcode = 'invalid_parameter_value';
    end if;
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'reading events with a cursor needs a transaction that is read committed'
            using errcode = 'invalid_transaction_state';
    end if;
    if pg_is_in_recovery() then
        raise exception 'reading events with a cursor needs the primary server: this is a standby'
            using errcode = 'invalid_transaction_state';
    end if;
end;
$$;

comment on function moonmind_queue._check_reader(text, integer) is 'Refuse a cursor that cannot be read on with.';
