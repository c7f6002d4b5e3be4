-- _add_follow_ups(jobs, ids, made, try) → void; keeps what those of the jobs that are new list.
--
-- Contract
--   * ids are the jobs' by place, made those that are new.
--   * With try all levels are enqueued and that is taken back, as of a schedule's job: whatever
--     enqueue refuses is refused now, in its words, and nothing can keep a job from ending later.
-- Errors    22023 too many or too deep, a name that a follow-up cannot have; those of enqueue_many().
create or replace function moonmind_queue._add_follow_ups(
    p_jobs jsonb,
    p_ids  bigint[],
    p_made bigint[],
    p_try  boolean
)
returns void
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_new   constant bigint[] := array(  -- places; a key may stand twice in one call: the first is the job
        select min(place) from unnest(p_ids) with ordinality as given (id, place)
        where id = any (p_made)
        group by id
    );
    v_each  record;
    v_fault text;
begin
    insert into follow_up (job_id, event, number, job, role)
    select p_ids[place], event, number, job, session_user
    from _follow_ups(p_jobs)
    where depth = 1 and place = any (v_new);
    if not p_try then
        return;
    end if;

    select format('job %s: its follow-ups are %s; at most 100 jobs in 5 levels are kept', place,
                  case when max(depth) > 5 then 'nested more than 5 levels deep' else count(*) || ' jobs' end)
    into v_fault
    from _follow_ups(p_jobs)
    where place = any (v_new)
    group by place
    having max(depth) > 5 or count(*) > 100
    order by place
    limit 1;
    if v_fault is not null then
        raise exception '%', v_fault using errcode = 'invalid_parameter_value';
    end if;
    select format('the allowance of %s admits %s generations of jobs made by jobs, and job %s would bring %s',
                  session_user, max_depth, place, coalesce(origin.depth, 0) + listed.depth)
    into v_fault
    from allowance
    cross join _follow_ups(p_jobs) as listed
    left join origin on origin.job_id = p_ids[place]
    where role = session_user and place = any (v_new) and coalesce(origin.depth, 0) + listed.depth > max_depth
    limit 1;
    if found then
        raise exception '%', v_fault using errcode = 'MQ004';
    end if;
    begin
        for v_each in select * from _follow_ups(p_jobs) where place = any (v_new) loop
            perform _check_jobs(jsonb_build_array(v_each.job));
            if v_each.job ?| '{after,made_by}' then
                raise exception 'it cannot have after or made_by, for it comes after its job; a chain nests on_success'
                    using errcode = 'invalid_parameter_value';
            end if;
            perform _add_jobs(jsonb_build_array(v_each.job - '{on_success,on_failure}'::text[]));
        end loop;
        raise sqlstate 'MQ999';  -- a way back, and no error: it never leaves this block
    exception
        when sqlstate 'MQ999' then
            null;
        when data_exception or integrity_constraint_violation or sqlstate 'MQ004' then
            raise exception 'job %: on_% %: %', v_each.place, v_each.event, v_each.number, regexp_replace(sqlerrm, '^job 1: ', '')
                using errcode = sqlstate;
    end;
end;
$$;

comment on function moonmind_queue._add_follow_ups(jsonb, bigint[], bigint[], boolean)
is 'Keep what jobs want enqueued when they end.';
