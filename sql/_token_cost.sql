-- _token_cost(price, input, cached_input, output) → what tokens cost at this price; null without one.
--
-- Contract
--   * Tokens read from the cache are part of the input, and thoughts part of the output.
create or replace function moonmind_queue._token_cost(
    p_price        moonmind_queue.token_price,
    p_input        numeric,
    p_cached_input numeric,
    p_output       numeric
)
returns numeric
language sql
immutable
set search_path = moonmind_queue, pg_temp
as $$
    select trim_scale((
        (p_input - least(p_cached_input, p_input)) * p_price.input
        + least(p_cached_input, p_input) * p_price.cached_input
        + p_output * p_price.output
    ) / 1000000);
$$;

comment on function moonmind_queue._token_cost(moonmind_queue.token_price, numeric, numeric, numeric) is 'What tokens cost.';
