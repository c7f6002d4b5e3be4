-- _repository(payload) → the repository that a payload names, as host/path in lower case, or ''.
--
-- Contract
--   * owner/repo is one of github.com; scheme, user and .git make no difference.
--   * A name above 500 characters is none: cut off, it could pass for another.
--   * Only the form in which repositories are compared; whether it is a sane one is for whoever
--     checks the job's payload to say.
create or replace function moonmind_queue._repository(p_payload jsonb)
returns text
language plpgsql
immutable
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_name text := lower(btrim(p_payload ->> 'repository'));
begin
    if jsonb_typeof(p_payload -> 'repository') is distinct from 'string' or length(v_name) > 500 then
        return '';
    end if;
    if v_name ~ '^[^/:]+/[^/]+$' then
        v_name := 'github.com/' || v_name;
    elsif v_name !~ '^[a-z0-9+.-]+://' then
        v_name := regexp_replace(v_name, '^([^/:]+):', '\1/');  -- git@host:path
    end if;
    v_name := regexp_replace(v_name, '^[a-z0-9+.-]+://', '');
    v_name := regexp_replace(v_name, '^[^/@?#\\]*@', '');  -- behind ? or # it is no user
    return regexp_replace(v_name, '(\.git)?/*$', '');
end;
$$;

comment on function moonmind_queue._repository(jsonb) is 'The repository of a payload in the form in which it is compared.';
