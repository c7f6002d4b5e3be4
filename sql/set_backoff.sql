-- set_backoff(kind, base, cap, jitter) → void; how long failed jobs of this kind rest.
--
-- Contract
--   * base * 2^(attempt-1), at most cap, spread by the share jitter. A null base takes the row of
--     the kind away; that of * can only be changed.
-- Errors    22023 no kind, base not above 0, cap below base or above a year, jitter not a share.
create or replace function moonmind_queue.set_backoff(
    p_kind   text,
    p_base   interval,
    p_cap    interval         default interval '600 s',
    p_jitter double precision default 0.25
)
returns void
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
begin
    if p_kind = '*' and p_base is null then
        raise exception 'the back-off of * can be changed, not taken away' using errcode = 'invalid_parameter_value';
    end if;
    if coalesce(p_kind, '') = '' or length(p_kind) > 200
        or p_base is not null and not coalesce(
            p_base > interval '0' and p_cap >= p_base and p_cap <= interval '1 year' and p_jitter >= 0 and p_jitter < 1,
            false
        )
    then
        raise exception 'a back-off needs a kind, 0 < base <= cap <= 1 year and 0 <= jitter < 1, not %, %, % and %',
            left(p_kind, 200), p_base, p_cap, p_jitter
            using errcode = 'invalid_parameter_value';
    end if;
    if p_base is null then
        delete from backoff where kind = p_kind;
    else
        insert into backoff (kind, base, cap, jitter)
        values (p_kind, p_base, p_cap, p_jitter)
        on conflict (kind) do update set base = excluded.base, cap = excluded.cap, jitter = excluded.jitter;
    end if;
end;
$$;

comment on function moonmind_queue.set_backoff(text, interval, interval, double precision) is 'Say how long failed jobs of a kind rest.';
