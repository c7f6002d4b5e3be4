-- set_price(model, input, output, cached_input, since, currency) → void; what a million tokens cost from that day on, today by default.
--
-- Contract
--   * Cached input costs what input does where nothing is said. The name * serves every model
--     without a price of its own. A day with a price has the new one from now on.
--   * All prices are in one currency, for costs are added up. Budgets in money are reckoned anew.
-- Locks     the budgets.
-- Notifies  moonmind_queue
-- Errors    22023 no model, no price, or another currency than that of the other prices; 23514
--           what the table refuses.
create or replace function moonmind_queue.set_price(
    p_model        text,
    p_input        numeric,
    p_output       numeric,
    p_cached_input numeric default null,
    p_since        date    default null,
    p_currency     text    default null
)
returns void
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_since    constant date := coalesce(p_since, (_now() at time zone 'UTC')::date);
    v_currency text;
begin
    if p_model is null or p_input is null or p_output is null then
        raise exception 'a price needs a model, and what a million tokens of input and of output cost'
            using errcode = 'invalid_parameter_value';
    end if;
    perform _lock_budgets();
    select currency into v_currency from token_price where (model, since) <> (p_model, v_since) limit 1;
    if p_currency <> v_currency then
        raise exception 'all prices are in %, and so must this one be: costs are added up, and % is another currency',
            v_currency, left(p_currency, 100)
            using errcode = 'invalid_parameter_value';
    end if;
    insert into token_price (model, since, input, cached_input, output, currency)
    values (p_model, v_since, p_input, coalesce(p_cached_input, p_input), p_output, coalesce(p_currency, v_currency, 'USD'))
    on conflict (model, since) do update
    set input = excluded.input, cached_input = excluded.cached_input, output = excluded.output,
        currency = excluded.currency;
    perform _reckon_budgets();
end;
$$;

comment on function moonmind_queue.set_price(text, numeric, numeric, numeric, date, text) is 'Say what the tokens of a model cost.';
