-- Who may do what. The roles own nothing and write no table: they call functions, which run with
-- their owner's rights, and read views. Log in as a role of your own that is a member of one.
--
-- Roles belong to the whole server, so they may exist already, or be made by somebody else at
-- this moment; without the right to make them, ask your administrator for these four first.
do $$
declare
    v_role text;
begin
    foreach v_role in array '{moonmind_producer,moonmind_worker,moonmind_operator,moonmind_reader}'::text[] loop
        if not exists (select from pg_roles where rolname = v_role) then
            begin
                execute format('create role %I nologin', v_role);
            exception when duplicate_object or unique_violation then
                null;
            end;
        end if;
    end loop;
end;
$$;

revoke all on schema moonmind_queue from public;
revoke all on all functions in schema moonmind_queue from public;

grant usage on schema moonmind_queue to moonmind_producer, moonmind_worker, moonmind_operator, moonmind_reader;

-- Views call these with the rights of whoever reads them.
grant execute on function moonmind_queue._now(), moonmind_queue._is_met(text, text),
    moonmind_queue._rank(integer, timestamptz), moonmind_queue._task_state(text), moonmind_queue._task_event(text),
    moonmind_queue._permits(moonmind_queue.policy, moonmind_queue.lane),
    moonmind_queue._token_cost(moonmind_queue.token_price, numeric, numeric, numeric)
to moonmind_producer, moonmind_worker, moonmind_operator, moonmind_reader;

grant select on
    moonmind_queue.job_overview, moonmind_queue.job_history, moonmind_queue.job_log, moonmind_queue.job_artifact,
    moonmind_queue.artifact_content, moonmind_queue.worker_overview, moonmind_queue.queue_status,
    moonmind_queue.blocked_job, moonmind_queue.paused_agent, moonmind_queue.limit_overview,
    moonmind_queue.unserved_lane, moonmind_queue.queue_fault, moonmind_queue.job_document,
    moonmind_queue.queued_job,
    moonmind_queue.kind_rule, moonmind_queue.role_overview
to moonmind_producer, moonmind_worker, moonmind_operator, moonmind_reader;

grant execute on function
    moonmind_queue.enqueue(text, jsonb, text, text, text, integer, timestamptz, bigint[], integer, text[], interval, timestamptz, text, text, jsonb, jsonb, bigint),
    moonmind_queue.enqueue_many(jsonb),
    moonmind_queue.replay(bigint, jsonb, text),
    moonmind_queue.seed_dag(jsonb, text, text)
to moonmind_producer, moonmind_operator;

grant execute on function
    moonmind_queue.claim(text, text[], text[], text[], integer, interval, boolean, bigint[]),
    moonmind_queue.held_by(text),
    moonmind_queue.begin_step(bigint, bigint, text, text, jsonb),
    moonmind_queue.end_step(bigint, bigint, text, text, jsonb),
    moonmind_queue.hear(bigint, bigint, boolean),
    moonmind_queue.start(bigint, bigint),
    moonmind_queue.renew(bigint[], bigint[], interval),
    moonmind_queue.complete(bigint, bigint, jsonb),
    moonmind_queue.complete_many(bigint[], bigint[], jsonb[]),
    moonmind_queue.fail(bigint, bigint, text, text, interval, text),
    moonmind_queue.release(bigint, bigint, text, interval),
    moonmind_queue.append_event(bigint, bigint, text, text, text, jsonb),
    moonmind_queue.append_log(bigint, bigint, text, text, text),
    moonmind_queue.put_artifact(bigint, bigint, text, bytea, text, text),
    moonmind_queue.open_artifact(bigint, bigint, text, text, bigint, text),
    moonmind_queue.append_artifact(bigint, bigint, bytea),
    moonmind_queue.cool_down(bigint, bigint, interval, text),
    moonmind_queue.next_due(text[], text[], text[], bigint),
    moonmind_queue.doze(bigint, boolean),
    moonmind_queue.register_worker(text, text[], text[], text[], integer, text, integer, text, jsonb),
    moonmind_queue.see_worker(bigint, boolean)
to moonmind_worker;

grant execute on function moonmind_queue.reclaim(integer) to moonmind_worker, moonmind_operator;

grant execute on function moonmind_queue.peek(text[], text[], text[], integer, bigint[])
to moonmind_producer, moonmind_worker, moonmind_operator, moonmind_reader;

grant execute on function
    moonmind_queue.cancel(bigint, text),
    moonmind_queue.retry(bigint),
    moonmind_queue.redrive(text[], text, text, timestamptz, timestamptz, text, interval, integer, bigint, timestamptz, boolean),
    moonmind_queue.unlock(bigint, boolean),
    moonmind_queue.reset_dag(text, boolean),
    moonmind_queue.stop_worker(bigint),
    moonmind_queue.pause(text, text, timestamptz),
    moonmind_queue.resume(text),
    moonmind_queue.set_limit(text, text, integer),
    moonmind_queue.set_timeout(text, interval),
    moonmind_queue.set_failure_rule(text, text, text, text, integer, interval, integer, boolean, text),
    moonmind_queue.drop_failure_rule(text),
    moonmind_queue.say(bigint, text),
    moonmind_queue.set_backoff(text, interval, interval, double precision),
    moonmind_queue.set_policy(text, text[], text[], text[], text[], text[], text[], bigint),
    moonmind_queue.drop_policy(text),
    moonmind_queue.repair(),
    moonmind_queue.prune(interval, integer)
to moonmind_operator;

grant select on moonmind_queue.schedule_overview
to moonmind_producer, moonmind_worker, moonmind_operator, moonmind_reader;

grant execute on function
    moonmind_queue.due_schedules(integer),
    moonmind_queue.run_schedule(text, integer, timestamptz[], timestamptz),
    moonmind_queue.defer_schedule(text, integer, text)
to moonmind_worker;

grant execute on function
    moonmind_queue.add_schedule(text, text, jsonb, text, text, timestamptz),
    moonmind_queue.remove_schedule(text),
    moonmind_queue.pause_schedule(text, boolean),
    moonmind_queue.run_schedule_now(text)
to moonmind_operator;
grant select on moonmind_queue.retention_overview
to moonmind_producer, moonmind_worker, moonmind_operator, moonmind_reader;

grant execute on function moonmind_queue.event_cursor(timestamptz, integer), moonmind_queue.read_events(text, integer)
to moonmind_producer, moonmind_worker, moonmind_operator, moonmind_reader;

grant execute on function moonmind_queue.maintain(integer) to moonmind_worker, moonmind_operator;

grant execute on function moonmind_queue.set_retention(interval) to moonmind_operator;

grant select on moonmind_queue.agentmux_task, moonmind_queue.agentmux_event, moonmind_queue.agentmux_dag,
    moonmind_queue.agentmux_member, moonmind_queue.job_publication,
    moonmind_queue.job_message
to moonmind_producer, moonmind_worker, moonmind_operator, moonmind_reader;

grant select on moonmind_queue.failure_overview
to moonmind_producer, moonmind_worker, moonmind_operator, moonmind_reader;

grant execute on function moonmind_queue.classify_failure(text, text)
to moonmind_producer, moonmind_worker, moonmind_operator, moonmind_reader;

grant select on moonmind_queue.job_follow_up, moonmind_queue.job_origin, moonmind_queue.allowance_overview,
    moonmind_queue.job_outcome
to moonmind_producer, moonmind_worker, moonmind_operator, moonmind_reader;

grant execute on function moonmind_queue.set_allowance(text, text[], text[], text[], integer, integer, integer)
to moonmind_operator;

grant select on moonmind_queue.job_usage, moonmind_queue.usage_overview, moonmind_queue.usage_by_repository,
    moonmind_queue.usage_by_model, moonmind_queue.usage_by_agent, moonmind_queue.usage_by_day,
    moonmind_queue.price_overview, moonmind_queue.budget_overview
to moonmind_producer, moonmind_worker, moonmind_operator, moonmind_reader;

grant execute on function moonmind_queue.count_usage(bigint, bigint, text, text, bigint, bigint, bigint, bigint)
to moonmind_worker;

grant execute on function
    moonmind_queue.set_price(text, numeric, numeric, numeric, date, text),
    moonmind_queue.drop_price(text, date),
    moonmind_queue.set_budget(text, text, text, bigint, numeric),
    moonmind_queue.drop_budget(text, text, text)
to moonmind_operator;
