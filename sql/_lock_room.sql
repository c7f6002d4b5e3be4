-- _lock_room(lane, taken) → whether the limits leave room for one more job of this lane; they are locked then.
--
-- taken are jobs that this claim has chosen already and has not leased yet.
--
-- Locks     an advisory lock for each scope that counts the lane, until the transaction ends; one
--           that another claim has is not waited for, and there is no room.
-- Errors    25000 not read committed: the count would be that of a moment before the locks.
create or replace function moonmind_queue._lock_room(p_lane integer, p_taken bigint[])
returns boolean
language plpgsql
set search_path = moonmind_queue, pg_temp
set plan_cache_mode = force_generic_plan
as $$
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'a claim within limits needs a transaction that is read committed'
            using errcode = 'invalid_transaction_state';
    end if;
    if exists (
        select from _room(array[p_lane])
        where not pg_try_advisory_xact_lock(hashtext('moonmind_queue ' || scope), hashtext(name))
    ) then
        return false;
    end if;
    return not exists (select from _room(array[p_lane], p_taken) where room <= 0);
end;
$$;

comment on function moonmind_queue._lock_room(integer, bigint[]) is 'Lock the limits of a lane, if they leave room.';
