-- _seal_artifact(artifact, worker) → void; the bytes are complete: check them and show them.
--
-- Contract
--   * Up to 64 MiB the digest is computed here. Above, the whole would have to stand in memory;
--     there every reader compares it, as the client of this package does for all sizes.
-- Errors    22000 the bytes do not have the announced digest.
create or replace function moonmind_queue._seal_artifact(p_artifact_id bigint, p_worker text)
returns void
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_artifact artifact;
    v_sha256   text;
begin
    update artifact set sealed_at = _now() where id = p_artifact_id returning * into v_artifact;
    if v_artifact.size_bytes <= 64 * 1024 * 1024 then
        select encode(sha256(coalesce(string_agg(content, '' order by start_byte), '')), 'hex') into v_sha256
        from artifact_chunk
        where artifact_id = p_artifact_id;
        if v_sha256 <> v_artifact.sha256 then
            raise exception 'artifact "%" was announced with sha256 % and has %', v_artifact.name, v_artifact.sha256, v_sha256
                using errcode = 'data_exception';
        end if;
    end if;
    perform _log(v_artifact.job_id, 'artifact', v_artifact.name, p_worker => p_worker, p_data => jsonb_build_object(
        'id', v_artifact.id, 'attempt', v_artifact.attempt, 'content_type', v_artifact.content_type,
        'size_bytes', v_artifact.size_bytes, 'sha256', v_artifact.sha256
    ));
end;
$$;

comment on function moonmind_queue._seal_artifact(bigint, text) is 'Check a complete artifact and make it visible.';
