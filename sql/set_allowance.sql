-- set_allowance(role, agents, kinds, repositories, max_open, max_per_day, max_depth) → void; what a login may enqueue.
--
-- Contract
--   * Null admits all; nothing but nulls takes the allowance away. It holds for what is enqueued from
--     now on; jobs that the login has added before are not counted.
--   * Repositories are kept as host/path in lower case; owner/repo is one of github.com, and
--     owner/* or host/owner/* admits all below.
-- Errors    22023 no such role, a list with a null, a repository that names none; 23514 a negative number.
create or replace function moonmind_queue.set_allowance(
    p_role         text,
    p_agents       text[]  default null,
    p_kinds        text[]  default null,
    p_repositories text[]  default null,
    p_max_open     integer default null,
    p_max_per_day  integer default null,
    p_max_depth    integer default null
)
returns void
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
begin
    if num_nonnulls(p_agents, p_kinds, p_repositories, p_max_open, p_max_per_day, p_max_depth) = 0 then
        delete from allowance where role = p_role;
        delete from enqueued where role = p_role;
        return;
    end if;
    if not exists (select from pg_roles where rolname = p_role) then
        raise exception 'there is no role %', left(p_role, 100) using errcode = 'invalid_parameter_value';
    end if;
    if exists (select from unnest(p_agents || p_kinds || p_repositories) as name where name is null) then
        raise exception 'the allowance of % has a list with a null in it', p_role using errcode = 'invalid_parameter_value';
    end if;
    if exists (
        select from unnest(p_repositories) as name where _repository(jsonb_build_object('repository', name)) = ''
    ) then
        raise exception 'the allowance of % has a repository that names none', p_role using errcode = 'invalid_parameter_value';
    end if;
    insert into allowance (role, agents, kinds, repositories, max_open, max_per_day, max_depth)
    values (
        p_role, p_agents, p_kinds,
        (select array_agg(_repository(jsonb_build_object('repository', name))) from unnest(p_repositories) as name),
        p_max_open, p_max_per_day, p_max_depth
    )
    on conflict (role) do update
    set agents = excluded.agents, kinds = excluded.kinds, repositories = excluded.repositories,
        max_open = excluded.max_open, max_per_day = excluded.max_per_day, max_depth = excluded.max_depth;
end;
$$;

comment on function moonmind_queue.set_allowance(text, text[], text[], text[], integer, integer, integer)
is 'Bind what a login may enqueue.';
