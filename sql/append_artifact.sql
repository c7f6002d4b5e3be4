-- append_artifact(artifact, token, content) → how many bytes have come so far.
--
-- Contract
--   * By the lease holder only. The last byte seals the artifact; then everybody sees it.
-- Locks     the job, its lease.
-- Events    artifact, with the last byte.
-- Errors    MQ001, MQ002; 22023 no content, no open artifact of this token, or more bytes than announced;
--           22000 the bytes do not have the announced digest.
create or replace function moonmind_queue.append_artifact(p_artifact_id bigint, p_token bigint, p_content bytea)
returns bigint
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_artifact artifact;
    v_lease    lease;
    v_start    bigint;
    v_size     bigint;
begin
    if p_content is null then
        raise exception 'append_artifact needs content, not null' using errcode = 'invalid_parameter_value';
    end if;
    select * into v_artifact from artifact where id = p_artifact_id and token = p_token;
    if found then
        v_lease := _lock_lease(v_artifact.job_id, p_token);
        select * into v_artifact from artifact where id = p_artifact_id and sealed_at is null;
    end if;
    if not found then
        raise exception 'token % has no open artifact %', p_token, p_artifact_id
            using errcode = 'invalid_parameter_value';
    end if;

    select coalesce(max(start_byte + octet_length(content)), 0) into v_start
    from (
        select start_byte, content
        from artifact_chunk
        where artifact_id = p_artifact_id
        order by start_byte desc
        limit 1
    ) as last;
    v_size := v_start + octet_length(p_content);
    if v_size > v_artifact.size_bytes then
        raise exception 'artifact "%" was announced with % bytes and got %', v_artifact.name, v_artifact.size_bytes, v_size
            using errcode = 'invalid_parameter_value';
    end if;
    if octet_length(p_content) = 0 then
        return v_start;
    end if;
    insert into artifact_chunk (artifact_id, start_byte, content) values (p_artifact_id, v_start, p_content);
    if v_size = v_artifact.size_bytes then
        perform _seal_artifact(p_artifact_id, v_lease.worker);
    end if;
    return v_size;
end;
$$;

comment on function moonmind_queue.append_artifact(bigint, bigint, bytea) is 'Send the next bytes of an open artifact.';
