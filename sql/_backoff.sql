-- _backoff(kind, attempt) → how long a job rests after this attempt failed.
--
-- Contract
--   * base * 2^(attempt-1), at most cap, spread by jitter; the kind's row, else that of '*'.
create or replace function moonmind_queue._backoff(p_kind text, p_attempt integer)
returns interval
language sql
set search_path = moonmind_queue, pg_temp
as $$
    select make_interval(secs =>
        least(
            extract(epoch from base)::double precision * power(2, least(greatest(p_attempt, 1), 30) - 1),
            extract(epoch from cap)::double precision
        ) * (1 + jitter * (2 * random() - 1)))
    from backoff
    where kind in (p_kind, '*')
    order by kind = '*'
    limit 1;
$$;

comment on function moonmind_queue._backoff(text, integer) is 'The rest after a failed attempt.';
