-- drop_price(model, since) → whether there was a price; that of that day, or all of the model (null).
--
-- Locks     the budgets, which are reckoned anew.
-- Notifies  moonmind_queue
create or replace function moonmind_queue.drop_price(p_model text, p_since date default null)
returns boolean
language plpgsql
security definer
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_any boolean;
begin
    perform _lock_budgets();
    delete from token_price where model = p_model and since = coalesce(p_since, since);
    v_any := found;
    if v_any then
        perform _reckon_budgets();
    end if;
    return v_any;
end;
$$;

comment on function moonmind_queue.drop_price(text, date) is 'Take prices away.';
