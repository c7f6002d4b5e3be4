-- _overspent(job) → in words how a job has used up its own budget; null when it has not, or has none.
--
-- Contract
--   * Its budget is what its payload says as budget {"tokens", "cost"} and what the budget of its
--     kind (or of *) says: the smaller counts, so that no producer is above an operator.
--   * It counts all attempts since the job was last retried by a person. What has no price costs nothing here.
create or replace function moonmind_queue._overspent(p_job_id bigint)
returns text
language plpgsql
stable
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
as $$
declare
    v_used record;
    v_most record;
begin
    select sum(input_tokens + output_tokens) as tokens, sum(cost) as cost
    into v_used
    from job_usage
    where job_id = p_job_id and counts;
    select least(case when jsonb_typeof(asked -> 'tokens') = 'number' then (asked ->> 'tokens')::numeric end, tokens) as tokens,
           least(case when jsonb_typeof(asked -> 'cost') = 'number' then (asked ->> 'cost')::numeric end, cost) as cost
    into v_most
    from (
        select payload -> 'budget' as asked, applied.*
        from job
        left join lateral (
            select tokens, cost
            from budget
            where scope = 'job' and name in (job.kind, '*')
            order by name = '*'
            limit 1
        ) as applied on true
        where id = p_job_id
    ) as budgets;
    return case
        when v_used.tokens >= v_most.tokens
            then format('the budget of the job is used up: %s of %s tokens', v_used.tokens, v_most.tokens)
        when v_used.cost >= v_most.cost
            then format('the budget of the job is used up: %s of %s %s', trim_scale(round(v_used.cost, 4)), v_most.cost,
                        (select currency from token_price limit 1))
    end;
end;
$$;

comment on function moonmind_queue._overspent(bigint) is 'Whether a job has used up its own budget.';
