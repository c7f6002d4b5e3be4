-- put_artifact(job, token, name, content, content_type, sha256) → the artifact's id.
--
-- For content that fits in one value; larger ones go through open_artifact() and append_artifact().
--
-- Contract
--   * By the lease holder only; immutable; a name is unique within an attempt. The same bytes
--     again change nothing and return the same id.
-- Locks     the job, its lease.
-- Events    artifact
-- Errors    MQ001, MQ002; 22023 no name or no content, a content type above 200 characters, or a
--           name under inputs/; 23505 the name is taken by other bytes; 23514 unsafe name;
--           22000 the bytes do not have the digest.
create or replace function moonmind_queue.put_artifact(
    p_job_id       bigint,
    p_token        bigint,
    p_name         text,
    p_content      bytea,
    p_content_type text default 'application/octet-stream',
    p_sha256       text default null
)
returns bigint
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_sha256 constant text := coalesce(lower(p_sha256), encode(sha256(p_content), 'hex'));
    v_id     bigint;
begin
    if p_content is null then
        raise exception 'put_artifact needs content, not null' using errcode = 'invalid_parameter_value';
    end if;
    v_id := open_artifact(
        p_job_id, p_token, p_name, coalesce(p_content_type, 'application/octet-stream'),
        octet_length(p_content), v_sha256
    );
    if v_id is null then
        if encode(sha256(p_content), 'hex') <> v_sha256 then
            raise exception 'artifact "%" was announced with sha256 % and has another', left(p_name, 100), left(p_sha256, 64)
                using errcode = 'data_exception';
        end if;
        select id into v_id from artifact where job_id = p_job_id and token = p_token and name = p_name;
    elsif octet_length(p_content) > 0 then
        perform append_artifact(v_id, p_token, p_content);
    end if;
    return v_id;
end;
$$;

comment on function moonmind_queue.put_artifact(bigint, bigint, text, bytea, text, text) is 'Store bytes as an artifact of a job that one holds.';
