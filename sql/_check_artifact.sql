-- _check_artifact(name, content_type, size_bytes) → void, or an error: the login's policy must admit such an artifact.
--
-- Contract
--   * Parameters of a content type (charset and the like) and its case make no difference.
-- Errors    MQ004
create or replace function moonmind_queue._check_artifact(p_name text, p_content_type text, p_size_bytes bigint)
returns void
language plpgsql
stable
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_policy constant policy := _policy();
    v_type   constant text := lower(btrim(split_part(p_content_type, ';', 1)));
begin
    if v_type <> all (v_policy.content_types)
        and regexp_replace(v_type, '/.*', '/*') <> all (v_policy.content_types)
    then
        raise exception 'the policy of % admits no artifact of type %, as % is; it admits %',
            session_user, v_type, left(p_name, 100), array_to_string(v_policy.content_types, ', ')
            using errcode = 'MQ004';
    end if;
    if p_size_bytes > v_policy.artifact_max_bytes then
        raise exception 'the policy of % admits no artifact above % bytes; % has %',
            session_user, v_policy.artifact_max_bytes, left(p_name, 100), p_size_bytes
            using errcode = 'MQ004';
    end if;
end;
$$;

comment on function moonmind_queue._check_artifact(text, text, bigint) is 'Refuse artifacts that the login may not store.';
