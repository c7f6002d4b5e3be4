-- _make_room() → void; leases have ended: where limits kept jobs back, workers look again.
--
-- Notifies  moonmind_queue, of agents with claimable jobs that somebody sleeps for.
create or replace function moonmind_queue._make_room()
returns void
language plpgsql
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
begin
    if exists (select from run_limit) then
        perform _ring(array(
            select distinct agent
            from lane
            where exists (select from ready where ready.lane_id = lane.id)
        ));
    end if;
end;
$$;

comment on function moonmind_queue._make_room() is 'Wake workers that a limit may have kept waiting.';
