-- read_events(cursor, limit) → the next events of all jobs, and the cursor to go on with in each row.
--
-- Contract
--   * Whoever goes on with the cursor of the page before reads every event exactly once, however
--     late its transaction commits, and those of a job in their order. No row: nothing new, keep
--     your cursor. Store it with what you make of the events, and you go on there after a crash.
--   * Nobody waits for a transaction that stays open: its events come when it has committed.
--   * The cursor names the positions not read yet, so it is exact: it opens with those below its
--     end that were not to be seen. One that nobody can fill any more is left out: when every
--     transaction that wrote events after the highest position was drawn has ended, by their
--     locks on event, which are taken before a position is drawn and held until the commit.
-- Errors    22023 not such a cursor, a limit below 1; 25000 not read committed, or a standby: an
--           old snapshot and a copy's locks do not show who writes.
create or replace function moonmind_queue.read_events(p_cursor text, p_limit integer default 1000)
returns table (
    job_id bigint, seq integer, at timestamptz, type text, level text, message text, worker text,
    data jsonb, agent text, kind text, name text, key text, cursor text
)
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set enable_hashjoin = off
set max_parallel_workers_per_gather = 0
set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
    v_left    int8multirange;
    v_mark    bigint;
    v_writers text[];
    v_high    bigint;
    v_writing text[];
    v_read    bigint[];
    v_to      bigint;
begin
    perform _check_reader(p_cursor, p_limit);
    v_left := split_part(p_cursor, ' ', 1)::int8multirange;
    v_mark := nullif(split_part(p_cursor, ' ', 2), '')::bigint;
    v_writers := string_to_array(split_part(p_cursor, ' ', 3), ',');

    -- In this order: who drew one of these positions has the lock; who has it no more is visible.
    v_high := coalesce(pg_sequence_last_value('moonmind_queue.event_pos_seq'), 0);
    v_writing := _event_writers();
    v_read := array(
        select next.pos
        from unnest(v_left) as part (positions)
        cross join lateral (
            select pos from event
            where pos >= lower(positions) and pos < coalesce(upper(positions), 9223372036854775807)
            order by pos
            limit p_limit
        ) as next
        order by next.pos
        limit p_limit
    );
    if v_read = '{}' then
        return;
    end if;
    v_left := v_left - (select range_agg(int8range(pos, pos, '[]')) from unnest(v_read) as pos);

    if v_mark is null then
        v_mark := v_high;
        v_writers := v_writing;
    end if;
    v_to := case when cardinality(v_read) = p_limit then v_read[p_limit] else v_high end;
    -- A transaction that was prepared meanwhile goes by another name: all prepared ones count.
    if not v_writers && v_writing and not exists (select from unnest(v_writing) as name where name like '-1/%') then
        v_left := v_left - int8multirange(int8range(null, least(v_mark, v_to), '[]'));
        v_mark := v_high;
        v_writers := v_writing;
    end if;

    return query
    select event.job_id, event.seq, event.at, event.type, event.level::text, event.message, event.worker, event.data,
           job.agent, job.kind, job.name::text, job.key::text, format('%s %s %s', v_left, v_mark, array_to_string(v_writers, ','))
    from event
    join job on job.id = event.job_id
    where event.pos = any (v_read)
    order by event.pos;
end;
$$;

comment on function moonmind_queue.read_events(text, integer) is 'Follow the events of all jobs with a cursor.';
