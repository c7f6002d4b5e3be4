-- _keep_floor(above, until, dear) → void; claims of this session go on there, and look at everything again then.
create or replace function moonmind_queue._keep_floor(p_above jsonb, p_until timestamptz, p_dear boolean)
returns void
language plpgsql
set search_path = moonmind_queue, pg_temp
as $$
begin
    perform set_config(
        'moonmind_queue.floor', jsonb_build_object('above', p_above, 'until', p_until, 'dear', p_dear)::text, false
    );
end;
$$;

comment on function moonmind_queue._keep_floor(jsonb, timestamptz, boolean) is 'Say where claims of this session go on.';
