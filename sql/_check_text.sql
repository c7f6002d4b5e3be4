-- _check_text(name, text) → void, or an error: what a history keeps of a text is bounded.
--
-- Errors    22023 above 64 KiB.
create or replace function moonmind_queue._check_text(p_name text, p_text text)
returns void
language plpgsql
immutable
set search_path = moonmind_queue, pg_temp
as $$
begin
    if octet_length(p_text) > 65536 then
        raise exception '% has % bytes; at most 64 KiB are kept', p_name, octet_length(p_text)
            using errcode = 'invalid_parameter_value';
    end if;
end;
$$;

comment on function moonmind_queue._check_text(text, text) is 'Refuse a text that is too long.';
