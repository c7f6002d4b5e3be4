-- _with_room(lanes) → those of the lanes whose limits leave room for at least one more job.
create or replace function moonmind_queue._with_room(p_lanes integer[])
returns integer[]
language sql
stable
set search_path = moonmind_queue, pg_temp
as $$
    select array(
        select id
        from unnest(p_lanes) as id
        where id not in (select lane_id from _room(p_lanes) where room <= 0)
    );
$$;

comment on function moonmind_queue._with_room(integer[]) is 'The lanes whose limits leave room.';
