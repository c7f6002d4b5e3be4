-- _lanes(agents, kinds, capabilities) → the ids of the lanes that a worker may take from.
--
-- Contract
--   * A null list of agents or kinds admits all of them.
--   * A lane is admitted when the worker offers every capability that it requires.
create or replace function moonmind_queue._lanes(p_agents text[], p_kinds text[], p_capabilities text[])
returns integer[]
language plpgsql
stable
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_offered constant text[] := _capabilities(p_capabilities);
begin
    return array(
        select id
        from lane
        where (p_agents is null or agent = any (p_agents))
          and (p_kinds is null or kind = any (p_kinds))
          and capabilities <@ v_offered
    );
end;
$$;

comment on function moonmind_queue._lanes(text[], text[], text[]) is 'The lanes that a worker may take from.';
