-- _drop_months(table) → how many partitions were dropped: of months that are over and hold no row any more.
--
-- Contract
--   * A month goes when the last job has been pruned that it held a row of, so nothing of a job
--     that exists is ever lost.
--   * Waits 50 ms at most for whoever uses the table; then that is left for next time.
-- Locks     the partition against writers while it is read; then the table, exclusively, until
--           the transaction ends.
create or replace function moonmind_queue._drop_months(p_table text)
returns integer
language plpgsql
set search_path = moonmind_queue, pg_temp
set lock_timeout = '50 ms'
as $$
declare
    v_dropped integer := 0;
    v_name    text;
    v_used    boolean;
begin
    for v_name in
        select relname
        from pg_inherits
        join pg_class on pg_class.oid = inhrelid
        where inhparent = format('moonmind_queue.%I', p_table)::regclass
          and relname ~ ('^' || p_table || '_\d{4}_\d{2}$')
          and to_date(right(relname, 7), 'YYYY_MM') + interval '1 month 1 day' < _now() at time zone 'UTC'
        order by relname
    loop
        execute format('select exists (select from moonmind_queue.%I)', v_name) into v_used;
        continue when v_used;
        begin
            execute format('lock table moonmind_queue.%I in share mode', v_name);
            execute format('select exists (select from moonmind_queue.%I)', v_name) into v_used;
            if not v_used then
                execute format('drop table moonmind_queue.%I', v_name);
                v_dropped := v_dropped + 1;
            end if;
        exception when lock_not_available or deadlock_detected then
            return v_dropped;
        end;
    end loop;
    return v_dropped;
end;
$$;

comment on function moonmind_queue._drop_months(text) is 'Drop the partitions that are empty and over.';
