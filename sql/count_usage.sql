-- count_usage(job, token, thread, model, input, cached_input, output, reasoning) → no row: go on; else how the attempt is to end, and why.
--
-- Contract
--   * By the lease holder only. The counters are those of a thread, a conversation with a model,
--     since its beginning: what an attempt told last is taken off, or what any did before it. So
--     the same again counts nothing, and a thread that is gone on with counts what is new. Counters
--     that fell, because an older state of the thread was gone on with, count nothing once.
--   * Cached input is part of the input, and reasoning part of the output. model null: nobody knows.
--   * outcome block: the job has used up its own budget. release: one that it shares with others
--     is used up, and the job can go on when that is renewed.
-- Locks     the job, its lease; where there are budgets, these.
-- Events    overspent, once in an attempt.
-- Errors    MQ001, MQ002, MQ004; 22023 no thread, no counters, or a thread or model above 200
--           characters; 23514 counters that are negative or absurd.
create or replace function moonmind_queue.count_usage(
    p_job_id       bigint,
    p_token        bigint,
    p_thread       text,
    p_model        text,
    p_input        bigint,
    p_cached_input bigint default 0,
    p_output       bigint default 0,
    p_reasoning    bigint default 0
)
returns table (outcome text, reason text)
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    v_day   constant date := (_now() at time zone 'UTC')::date;
    v_lease constant lease := _lock_lease(p_job_id, p_token);
    v_lane  lane;
    v_new   usage_thread;
    v_own   text;
begin
    if coalesce(p_thread, '') = '' or greatest(length(p_thread), length(p_model)) > 200
        or p_input + p_cached_input + p_output + p_reasoning is null
    then
        raise exception 'usage needs four counters and a thread, and names of at most 200 characters: %, %',
            left(p_thread, 100), left(p_model, 100)
            using errcode = 'invalid_parameter_value';
    end if;
    if exists (select from budget) then
        perform _lock_budgets();
    end if;
    select p_job_id, p_thread, p_token,
           greatest(p_input - coalesce(max(input_tokens), 0), 0),
           greatest(p_cached_input - coalesce(max(cached_input_tokens), 0), 0),
           greatest(p_output - coalesce(max(output_tokens), 0), 0),
           greatest(p_reasoning - coalesce(max(reasoning_tokens), 0), 0)
    into v_new
    from (
        select *, rank() over (order by token = p_token desc) as place
        from usage_thread
        where job_id = p_job_id and thread = p_thread
    ) as told
    where place = 1;

    insert into usage_thread as known
    values (p_job_id, p_thread, p_token, p_input, p_cached_input, p_output, p_reasoning)
    on conflict (job_id, thread, token) do update
    set input_tokens = greatest(known.input_tokens, excluded.input_tokens),
        cached_input_tokens = greatest(known.cached_input_tokens, excluded.cached_input_tokens),
        output_tokens = greatest(known.output_tokens, excluded.output_tokens),
        reasoning_tokens = greatest(known.reasoning_tokens, excluded.reasoning_tokens);
    select * into v_lane from lane where id = v_lease.lane_id;
    perform _add_usage(v_new, v_lease.attempt, v_lane, coalesce(p_model, ''), v_day);

    v_own := _overspent(p_job_id);
    outcome := case when v_own is not null then 'block' else 'release' end;
    reason := coalesce(v_own, case when exists (select from budget) then _spend(v_lane) end);
    if reason is not null then
        perform _tell_overspent(p_job_id, v_lease.worker, reason);
        return next;
    end if;
end;
$$;

comment on function moonmind_queue.count_usage(bigint, bigint, text, text, bigint, bigint, bigint, bigint)
is 'Say how many tokens of a model were used; learn whether that was too much.';
