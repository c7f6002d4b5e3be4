-- _capabilities(names) → the names trimmed, in lower case, each once, in order; null is none.
--
-- Contract
--   * Jobs and workers are compared in this form, so case and surrounding blanks never matter.
create or replace function moonmind_queue._capabilities(p_names text[])
returns text[]
language plpgsql
immutable
set search_path = moonmind_queue, pg_temp
as $$
begin
    if cardinality(p_names) > 0 then
        return coalesce(
            (
                select array_agg(distinct name order by name)
                from (select lower(btrim(name)) as name from unnest(p_names) as given (name)) as tidy
                where name <> ''
            ),
            '{}'
        );
    end if;
    return '{}';
end;
$$;

comment on function moonmind_queue._capabilities(text[]) is 'Capabilities in the form in which they are compared.';
