-- open_artifact(job, token, name, content_type, size_bytes, sha256) → the artifact's id, or null.
--
-- Begins an artifact whose bytes follow by append_artifact(). Nobody sees it before its last byte.
--
-- Contract
--   * By the lease holder only; a name is unique within an attempt.
--   * Names under inputs/, in whatever case, are kept for what producers attach.
--   * Null: this very artifact is there already, nothing more is to be sent.
--   * What an interrupted upload of the same name left behind is thrown away.
-- Locks     the job, its lease.
-- Events    artifact, when there are no bytes to wait for.
-- Errors    MQ001, MQ002; MQ004 a job, a content type or a size that the login's policy does not admit; 22023 something is null, a content type above 200 characters, or a name
--           under inputs/; 23505 the name is taken by other bytes; 23514 unsafe name, bad digest.
create or replace function moonmind_queue.open_artifact(
    p_job_id       bigint,
    p_token        bigint,
    p_name         text,
    p_content_type text,
    p_size_bytes   bigint,
    p_sha256       text
)
returns bigint
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_lease constant lease := _lock_lease(p_job_id, p_token);
    v_old   artifact;
    v_id    bigint;
begin
    if p_name ~* '^inputs/' then
        raise exception 'artifact "%" of job %: names under inputs/ are kept for what producers attach; give it another',
            left(p_name, 100), p_job_id
            using errcode = 'invalid_parameter_value';
    end if;
    if p_name is null or p_content_type is null or p_size_bytes is null or p_sha256 is null
        or length(p_content_type) > 200
    then
        raise exception 'an artifact needs a name, a content type of at most 200 characters, a size and a sha256, not %, %, % and %',
            coalesce(left(p_name, 100), 'null'), coalesce(left(p_content_type, 100), 'null'),
            coalesce(p_size_bytes::text, 'null'), coalesce(left(p_sha256, 64), 'null')
            using errcode = 'invalid_parameter_value';
    end if;
    perform _check_artifact(p_name, p_content_type, p_size_bytes);
    select * into v_old from artifact where job_id = p_job_id and token = p_token and name = p_name;
    if v_old.sealed_at is not null then
        if (v_old.size_bytes, v_old.sha256) = (p_size_bytes, p_sha256) then
            return null;
        end if;
        raise exception 'artifact "%" of job %, attempt % exists already with other bytes', p_name, p_job_id, v_old.attempt
            using errcode = 'unique_violation';
    end if;
    delete from artifact_chunk where artifact_id = v_old.id;
    delete from artifact where id = v_old.id;

    insert into artifact (job_id, attempt, token, name, content_type, size_bytes, sha256, created_at)
    values (p_job_id, v_lease.attempt, p_token, p_name, p_content_type, p_size_bytes, p_sha256, _now())
    returning id into v_id;
    if p_size_bytes = 0 then
        perform _seal_artifact(v_id, v_lease.worker);
    end if;
    return v_id;
end;
$$;

comment on function moonmind_queue.open_artifact(bigint, bigint, text, text, bigint, text) is 'Begin an artifact of a job that one holds.';
