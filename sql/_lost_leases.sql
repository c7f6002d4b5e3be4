-- _lost_leases(job) → how many leases the job lost since it was made or last retried by a person.
create or replace function moonmind_queue._lost_leases(p_job_id bigint)
returns bigint
language sql
stable
set search_path = moonmind_queue, pg_temp
as $$
    select count(*)
    from event
    where job_id = p_job_id
      and type = 'expired'
      and seq > (select coalesce(max(seq), 0) from event where job_id = p_job_id and type = 'retried');
$$;

comment on function moonmind_queue._lost_leases(bigint) is 'Lost leases of a job since its last retry.';
