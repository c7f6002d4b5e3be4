-- _failures_like(job, class) → how many attempts failed by this rule since a person last retried the job.
create or replace function moonmind_queue._failures_like(p_job_id bigint, p_class text)
returns bigint
language plpgsql
stable
set search_path = moonmind_queue, pg_temp
set enable_seqscan = off
set jit = off
as $$
begin
    return (
        select count(*)
        from event
        where job_id = p_job_id
          and type = 'failed'
          and data ->> 'class' = p_class
          and seq > coalesce((select max(seq) from event where job_id = p_job_id and type = 'retried'), 0)
    );
end;
$$;

comment on function moonmind_queue._failures_like(bigint, text) is 'Count an attempt''s failures of one sort.';
