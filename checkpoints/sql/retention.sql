-- Queries of checkpoints/retention.py.

-- name: list_threads
-- Steps from one thread to the next along the primary key, so that a page costs the same however long its threads
-- are. A thread waits if its latest checkpoint has an interrupt among its writes.
WITH RECURSIVE page AS (
    (SELECT thread_id, 1 AS position FROM checkpoints WHERE thread_id > %(after)s ORDER BY thread_id LIMIT 1)
    UNION ALL
    SELECT following.thread_id, position + 1 FROM page CROSS JOIN LATERAL (
        SELECT thread_id FROM checkpoints WHERE thread_id > page.thread_id ORDER BY thread_id LIMIT 1
    ) AS following
    WHERE position < %(limit)s
)
SELECT page.thread_id, head.graph, head.idle, coalesce(head.waits, false) AS waits,
       (SELECT count(*) FROM checkpoints
        WHERE checkpoints.thread_id = page.thread_id AND checkpoint_ns = '') AS checkpoints
FROM page LEFT JOIN LATERAL (
    SELECT metadata ->> 'graph' AS graph,
           now() - (checkpoint ->> 'ts')::timestamptz AS idle,
           EXISTS (SELECT FROM checkpoint_writes AS interrupts
                   WHERE interrupts.thread_id = latest.thread_id AND interrupts.checkpoint_ns = ''
                     AND interrupts.checkpoint_id = latest.checkpoint_id
                     AND interrupts.channel = '__interrupt__') AS waits
    FROM checkpoints AS latest
    WHERE latest.thread_id = page.thread_id AND checkpoint_ns = ''
    ORDER BY checkpoint_id DESC LIMIT 1
) AS head ON true
ORDER BY page.thread_id

-- name: measure_thread
-- The size of a whole thread, without indexes.
SELECT (SELECT coalesce(sum(pg_column_size(c)), 0) FROM checkpoints AS c WHERE thread_id = %(thread)s)
     + (SELECT coalesce(sum(pg_column_size(w)), 0) FROM checkpoint_writes AS w WHERE thread_id = %(thread)s)
     + (SELECT coalesce(sum(pg_column_size(b)), 0) FROM checkpoint_blobs AS b WHERE thread_id = %(thread)s)
       AS bytes

-- name: measure_idle_time
SELECT now() - (checkpoint ->> 'ts')::timestamptz AS idle FROM checkpoints
WHERE thread_id = %s AND checkpoint_ns = '' ORDER BY checkpoint_id DESC LIMIT 1
