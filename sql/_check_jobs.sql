-- _check_jobs(jobs) → void, or an error that names the first job at fault by its place.
--
-- Errors    22023
create or replace function moonmind_queue._check_jobs(p_jobs jsonb)
returns void
language plpgsql
immutable
set search_path = moonmind_queue, pg_temp
as $$
declare
    v_names constant text[] :=
        '{kind,payload,agent,name,key,priority,run_at,after,max_attempts,capabilities,timeout,expires_at,on_dependency_failure,concurrency_key,on_success,on_failure,made_by}';
    v_fault text;
begin
    if jsonb_typeof(p_jobs) is distinct from 'array' then
        raise exception 'enqueue_many needs a JSON array of objects'
            using errcode = 'invalid_parameter_value';
    end if;
    select format(
        'job %s: %s', place,
        case
            when jsonb_typeof(job) <> 'object' then 'is not an object'
            when jsonb_typeof(job -> 'after') not in ('array', 'null') then 'after is not an array'
            when jsonb_typeof(job -> 'on_success') not in ('array', 'null') then 'on_success is not an array of jobs'
            when jsonb_typeof(job -> 'on_failure') not in ('array', 'null') then 'on_failure is not an array of jobs'
            else 'unknown name ' || (select string_agg(quote_ident(left(name, 100)), ', ') from (
                select name from jsonb_object_keys(job - v_names) as name limit 5) as unknown)
                || '; there are ' || array_to_string(v_names, ', ')
        end
    ) into v_fault
    from jsonb_array_elements(p_jobs) with ordinality as given (job, place)
    where case
              when jsonb_typeof(job) <> 'object' then true
              else job - v_names <> '{}'
                  or jsonb_typeof(job -> 'after') not in ('array', 'null')
                  or jsonb_typeof(job -> 'on_success') not in ('array', 'null')
                  or jsonb_typeof(job -> 'on_failure') not in ('array', 'null')
          end
    limit 1;
    if v_fault is not null then
        raise exception '%', v_fault using errcode = 'invalid_parameter_value';
    end if;
end;
$$;

comment on function moonmind_queue._check_jobs(jsonb) is 'Refuse what enqueue_many cannot read.';
