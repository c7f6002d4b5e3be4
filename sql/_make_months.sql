-- _make_months(table) → how many partitions were made: for this month and the next two, in UTC.
--
-- Contract
--   * A month of which the default partition holds rows already stays there: rows never move.
--   * Waits 50 ms at most for whoever uses the table; then that is left for next time.
--   * None while the default partition has more than 8 MiB: all of it would be read while it is
--     locked. A valid check constraint that says what it holds spares that; docs/retention.md.
-- Locks     the table and its default partition, exclusively, until the transaction ends.
create or replace function moonmind_queue._make_months(p_table text)
returns integer
language plpgsql
set search_path = moonmind_queue, pg_temp
set lock_timeout = '50 ms'
as $$
declare
    c_quickly constant bigint   := 8 * 1024 * 1024;  -- bytes that are read in a few milliseconds
    c_default constant regclass := format('moonmind_queue.%I', p_table || '_default');
    v_made    integer := 0;
    v_from    timestamp;
    v_name    text;
    v_strayed boolean;
begin
    if pg_relation_size(c_default) > c_quickly
        and not exists (select from pg_constraint where conrelid = c_default and contype = 'c' and convalidated)
    then
        return 0;
    end if;
    for v_number in 0..2 loop
        v_from := date_trunc('month', _now() at time zone 'UTC') + v_number * interval '1 month';
        v_name := format('%s_%s', p_table, to_char(v_from, 'YYYY_MM'));
        continue when to_regclass(format('moonmind_queue.%I', v_name)) is not null;
        execute format('select exists (select from %s where at >= $1 and at < $2)', c_default)
        into v_strayed
        using v_from at time zone 'UTC', (v_from + interval '1 month') at time zone 'UTC';
        continue when v_strayed;
        begin
            execute format(
                'create table moonmind_queue.%I partition of moonmind_queue.%I for values from (%L) to (%L)',
                v_name, p_table, v_from at time zone 'UTC', (v_from + interval '1 month') at time zone 'UTC'
            );
            execute format('comment on table moonmind_queue.%I is %L', v_name,
                           format('Rows of %s of %s, in UTC.', p_table, to_char(v_from, 'YYYY-MM')));
            v_made := v_made + 1;
        exception when lock_not_available or deadlock_detected or check_violation then
            return v_made;
        end;
    end loop;
    return v_made;
end;
$$;

comment on function moonmind_queue._make_months(text) is 'Make the partitions that are needed soon.';
