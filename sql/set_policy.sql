-- set_policy(role, agents, kinds, repositories, capabilities, workers, content_types, artifact_max_bytes) → void; what a worker that logs in as this role may do.
--
-- Contract
--   * A null list admits all. Enforced in claim and in every call of a lease holder, from now on.
--   * Content types are what its artifacts may be, whatever their parameters: type/subtype or type/*.
--   * Repositories are kept as host/path in lower case; owner/repo is one of github.com, and
--     owner/* or host/owner/* admits all below.
-- Errors    22023 no such role, a list with a null, a repository that names none; 23514 a negative size.
create or replace function moonmind_queue.set_policy(
    p_role         text,
    p_agents       text[] default null,
    p_kinds        text[] default null,
    p_repositories text[] default null,
    p_capabilities text[] default null,
    p_workers      text[] default null,
    p_content_types      text[] default null,
    p_artifact_max_bytes bigint default null
)
returns void
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
begin
    if not exists (select from pg_roles where rolname = p_role) then
        raise exception 'there is no role %', left(p_role, 100) using errcode = 'invalid_parameter_value';
    end if;
    if array_position(p_agents || p_kinds || p_repositories || p_capabilities || p_workers || p_content_types, null) is not null then
        raise exception 'the policy of % has a list with a null in it', p_role using errcode = 'invalid_parameter_value';
    end if;
    if exists (
        select from unnest(p_repositories) as name where _repository(jsonb_build_object('repository', name)) = ''
    ) then
        raise exception 'the policy of % has a repository that names none', p_role using errcode = 'invalid_parameter_value';
    end if;
    insert into policy (role, agents, kinds, repositories, capabilities, workers, content_types, artifact_max_bytes)
    values (
        p_role, p_agents, p_kinds,
        (select array_agg(_repository(jsonb_build_object('repository', name))) from unnest(p_repositories) as name),
        case when p_capabilities is not null then _capabilities(p_capabilities) end, p_workers,
        lower(p_content_types::text)::text[], p_artifact_max_bytes
    )
    on conflict (role) do update
    set agents = excluded.agents, kinds = excluded.kinds, repositories = excluded.repositories,
        capabilities = excluded.capabilities, workers = excluded.workers,
        content_types = excluded.content_types, artifact_max_bytes = excluded.artifact_max_bytes;
end;
$$;

comment on function moonmind_queue.set_policy(text, text[], text[], text[], text[], text[], text[], bigint) is 'Bind a worker''s login role to a policy.';
