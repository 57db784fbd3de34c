-- name: try_lock
SELECT pg_try_advisory_xact_lock(hashtextextended('stalled jobs of the queue', 0)) AS is_held

-- name: is_changed
-- With recent statistics a fetch reads the first rows of two indexes, else all jobs that wait.
SELECT n_mod_since_analyze > 1000 AS is_changed FROM pg_stat_user_tables
WHERE relid = to_regclass('procrastinate_jobs')

-- name: fetch_jobs
-- The function is called once for each number only because it is given one.
SELECT job.id, status, task_name, priority, lock, queueing_lock, args, scheduled_at, queue_name, attempts, worker_id
FROM generate_series(1, %(limit)s) AS number
CROSS JOIN LATERAL procrastinate_fetch_job_v2(%(queues)s::varchar[], %(worker_id)s + 0 * number) AS job
WHERE job.id IS NOT NULL

-- name: finish_jobs
SELECT procrastinate_finish_job_v1(id, status::procrastinate_job_status, delete_job)
FROM json_to_recordset(%(ends)s) AS ended (id bigint, status text, delete_job boolean)

-- name: find_queued
SELECT queueing_lock FROM procrastinate_jobs WHERE status = 'todo' AND queueing_lock = ANY(%(locks)s)
UNION ALL
SELECT queueing_lock FROM procrastinate_jobs WHERE status = 'doing' AND queueing_lock = ANY(%(locks)s)

-- name: measure
-- A job that is due later does not wait. The oldest is the one that came first.
SELECT task.name AS task, waiting, failed,
    extract(epoch FROM now() - coalesce(oldest.scheduled_at, deferred.at)) AS oldest_seconds
FROM (
    SELECT task_name AS name,
        count(*) FILTER (WHERE due) AS waiting,
        count(*) FILTER (WHERE status = 'failed') AS failed,
        min(id) FILTER (WHERE due) AS first
    FROM (
        SELECT id, task_name, status, status = 'todo' AND coalesce(scheduled_at <= now(), true) AS due
        FROM procrastinate_jobs
    ) AS job
    GROUP BY task_name
) AS task
LEFT JOIN procrastinate_jobs AS oldest ON oldest.id = task.first
LEFT JOIN LATERAL (
    SELECT min(at) AS at FROM procrastinate_events WHERE job_id = task.first AND type = 'deferred'
) AS deferred ON true
