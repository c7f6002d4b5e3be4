-- _add_usage(new, attempt, lane, model, day) → void; new tokens of an attempt, added to it and to the day.
--
-- Locks     the rows of the attempt and of the day.
create or replace function moonmind_queue._add_usage(
    p_new     moonmind_queue.usage_thread,
    p_attempt integer,
    p_lane    moonmind_queue.lane,
    p_model   text,
    p_day     date
)
returns void
language plpgsql
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
as $$
begin
    if greatest(p_new.input_tokens, p_new.cached_input_tokens, p_new.output_tokens, p_new.reasoning_tokens) = 0 then
        return;
    end if;
    insert into usage as known (job_id, token, model, day, attempt, input_tokens, cached_input_tokens, output_tokens, reasoning_tokens)
    values (
        p_new.job_id, p_new.token, p_model, p_day, p_attempt,
        p_new.input_tokens, p_new.cached_input_tokens, p_new.output_tokens, p_new.reasoning_tokens
    )
    on conflict (job_id, token, model, day) do update
    set input_tokens = known.input_tokens + excluded.input_tokens,
        cached_input_tokens = known.cached_input_tokens + excluded.cached_input_tokens,
        output_tokens = known.output_tokens + excluded.output_tokens,
        reasoning_tokens = known.reasoning_tokens + excluded.reasoning_tokens;
    insert into usage_day as known (day, agent, kind, repository, model, input_tokens, cached_input_tokens, output_tokens, reasoning_tokens)
    values (
        p_day, p_lane.agent, p_lane.kind, p_lane.repository, p_model,
        p_new.input_tokens, p_new.cached_input_tokens, p_new.output_tokens, p_new.reasoning_tokens
    )
    on conflict (day, agent, kind, repository, model) do update
    set input_tokens = known.input_tokens + excluded.input_tokens,
        cached_input_tokens = known.cached_input_tokens + excluded.cached_input_tokens,
        output_tokens = known.output_tokens + excluded.output_tokens,
        reasoning_tokens = known.reasoning_tokens + excluded.reasoning_tokens;
end;
$$;

comment on function moonmind_queue._add_usage(moonmind_queue.usage_thread, integer, moonmind_queue.lane, text, date) is 'Add tokens to an attempt and to its day.';
