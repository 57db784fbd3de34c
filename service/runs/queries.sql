-- Queries of service/runs/store.py, threads.py and log/part_exchange.py.

-- name: add
SELECT id::text, owner, ahead, status, attempt, is_new_thread, held_by, is_conflict FROM runs.add(%(runs)s)

-- name: claim
SELECT id::text, attempt, held_by FROM runs.claim(%(claims)s, %(replica)s, %(claim_seconds)s)

-- name: end
-- Ends runs with the events that they make true, and returns the runs that are next on their threads.
WITH mine AS MATERIALIZED (
    -- Rows are locked in the order of their ids by all statements that lock several.
    SELECT given.*
    FROM json_to_recordset(%(ends)s)
        AS given (id uuid, attempt int, status text, error text, metadata json, events json)
    JOIN runs.runs AS run ON run.id = given.id AND run.status = 'running' AND run.attempt = given.attempt
    ORDER BY run.id FOR NO KEY UPDATE OF run
), ended AS (
    UPDATE runs.runs AS run
    SET status = mine.status, ended_at = now(), error = mine.error::json, claimed_by = NULL, claim_expires_at = NULL,
        kwargs = CASE mine.status WHEN 'success' THEN NULL ELSE kwargs END
    FROM mine WHERE run.id = mine.id
    RETURNING run.id, run.thread_id, run.tenant, mine.metadata, mine.events,
              CASE mine.status WHEN 'success' THEN 'idle' WHEN 'interrupted' THEN 'interrupted' ELSE 'error' END AS left_behind
), announced AS (
    SELECT id, outbox.add_all(tenant, events) AS events
    -- Threads too are locked in one order.
    FROM (SELECT * FROM ended WHERE events IS NOT NULL ORDER BY thread_id) AS ordered
), updated AS (
    -- Most runs leave their thread as it was, and cost nothing here.
    UPDATE runs.threads SET updated_at = now(), status = ended.left_behind,
                            metadata = threads.metadata || coalesce(ended.metadata::jsonb, '{}')
    FROM ended WHERE threads.id = ended.thread_id
      AND (threads.status <> ended.left_behind OR ended.metadata IS NOT NULL)
)
SELECT ended.id::text, next.id::text AS next_id, next.claimed_by AS next_owner, announced.events
FROM ended LEFT JOIN announced ON announced.id = ended.id LEFT JOIN LATERAL (
    SELECT id, claimed_by FROM runs.runs WHERE thread_id = ended.thread_id AND status = 'pending'
    ORDER BY created_at, id LIMIT 1
) AS next ON true

-- name: release
-- Leaves a run that a replica has stopped on its way, or before it began, to any other.
UPDATE runs.runs SET status = 'pending', claimed_by = NULL, claim_expires_at = NULL
WHERE id = %(id)s AND ended_at IS NULL AND claimed_by = %(replica)s AND kwargs IS NOT NULL
  AND (attempt = %(attempt)s OR status = 'pending')
RETURNING id

-- name: discard
-- Deletes a run that was never begun.
WITH discarded AS (
    DELETE FROM runs.runs
    WHERE id = %(id)s AND (status = 'pending' AND attempt = 0 OR status = 'running' AND attempt = %(attempt)s)
    RETURNING thread_id
)
SELECT next.id::text AS next_id, next.claimed_by AS next_owner FROM discarded LEFT JOIN LATERAL (
    SELECT id, claimed_by FROM runs.runs WHERE thread_id = discarded.thread_id AND status = 'pending'
      AND id <> %(id)s
    ORDER BY created_at, id LIMIT 1
) AS next ON true

-- name: extend
-- A run that is missing from the result belongs to another replica now.
UPDATE runs.runs SET claim_expires_at = now() + %(claim_seconds)s * interval '1 second'
WHERE id IN (
    SELECT id FROM runs.runs WHERE id = ANY(%(ids)s) AND claimed_by = %(replica)s AND ended_at IS NULL
    ORDER BY id FOR NO KEY UPDATE
)
RETURNING id::text, cancel_action AS action, cancel_reason AS reason

-- name: requeue
-- Frees the runs whose replica stopped renewing its claims. One that cannot be executed elsewhere, or that was on
-- too many replicas that died, ends.
UPDATE runs.runs
SET status = CASE WHEN kwargs IS NOT NULL AND attempt < max_attempts THEN 'pending' ELSE 'error' END,
    ended_at = CASE WHEN kwargs IS NOT NULL AND attempt < max_attempts THEN NULL ELSE now() END,
    error = CASE WHEN kwargs IS NOT NULL AND attempt < max_attempts THEN NULL ELSE %(error)s::json END,
    claimed_by = NULL, claim_expires_at = NULL
WHERE id IN (
    SELECT id FROM runs.runs WHERE ended_at IS NULL AND claim_expires_at < now() LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
) AND ended_at IS NULL AND claim_expires_at < now()
RETURNING id::text, status, thread_id

-- name: reserve
-- Holds runs that are ready for this replica, the first of each tenant before the second of any.
WITH RECURSIVE tenants AS (
    (SELECT tenant FROM runs.runs WHERE status = 'pending' AND claimed_by IS NULL ORDER BY tenant LIMIT 1)
    UNION ALL
    SELECT (SELECT run.tenant FROM runs.runs AS run
            WHERE status = 'pending' AND claimed_by IS NULL AND run.tenant > tenants.tenant
            ORDER BY run.tenant LIMIT 1)
    FROM tenants WHERE tenants.tenant IS NOT NULL
), ready AS (
    SELECT first.id, row_number() OVER (PARTITION BY tenants.tenant ORDER BY priority DESC, created_at, id) AS turn,
           created_at
    FROM tenants CROSS JOIN LATERAL (
        SELECT id, priority, created_at FROM runs.runs AS run
        WHERE run.tenant = tenants.tenant AND status = 'pending' AND claimed_by IS NULL AND kwargs IS NOT NULL
          AND created_at <= clock_timestamp()
          AND NOT EXISTS (
              SELECT FROM runs.runs AS other WHERE other.thread_id = run.thread_id AND other.ended_at IS NULL
                AND (other.status = 'running' OR (other.created_at, other.id) < (run.created_at, run.id))
          )
        ORDER BY priority DESC, created_at, id
        -- More than needed, as another replica may be taking the same ones.
        LIMIT least(2 * %(limit)s, %(places)s - (
            SELECT count(*) FROM runs.runs AS other
            WHERE other.tenant = tenants.tenant AND other.queue = 'runs' AND other.status = 'running'
              AND other.ended_at IS NULL
        ))
    ) AS first
), chosen AS (
    SELECT run.id FROM ready JOIN runs.runs AS run ON run.id = ready.id
    WHERE run.status = 'pending' AND run.claimed_by IS NULL
    ORDER BY ready.turn, ready.created_at LIMIT %(limit)s FOR NO KEY UPDATE OF run SKIP LOCKED
)
UPDATE runs.runs AS run
SET claimed_by = %(replica)s, claim_expires_at = now() + %(claim_seconds)s * interval '1 second'
FROM chosen WHERE run.id = chosen.id
RETURNING run.id::text, thread_id, tenant, user_id, graph, assistant_id::text, metadata, queue, status, kwargs,
          multitask_strategy, priority, attempt, created_at, started_at, ended_at, claimed_by::text, cancel_action, cancel_reason, error

-- name: return_reserved
WITH returned AS (
    UPDATE runs.runs SET claimed_by = NULL, claim_expires_at = NULL
    WHERE id = %(id)s AND status = 'pending' AND claimed_by = %(replica)s
    RETURNING id
)
SELECT pg_notify('ventros_runs', %(message)s) FROM returned

-- name: retry
-- Its checkpoints must be the latest ones of the thread.
UPDATE runs.runs AS run
SET status = 'pending', ended_at = NULL, error = NULL, cancel_action = NULL, cancel_reason = NULL,
    max_attempts = attempt + %(more_attempts)s
WHERE id = %(id)s AND status IN ('error', 'timeout', 'interrupted') AND kwargs IS NOT NULL
  AND (status <> 'interrupted' OR cancel_action IS NOT NULL)
  AND NOT EXISTS (
      SELECT FROM runs.runs AS later
      WHERE later.thread_id = run.thread_id AND (later.created_at, later.id) > (run.created_at, run.id)
  )
RETURNING id

-- name: cancel
-- Cancels open runs of a thread. One that nobody has begun ends here; the replica that executes one stops it.
UPDATE runs.runs
SET cancel_action = %(action)s, cancel_reason = %(reason)s,
    status = CASE status WHEN 'pending' THEN 'interrupted' ELSE status END,
    ended_at = CASE status WHEN 'pending' THEN now() END,
    claimed_by = CASE status WHEN 'pending' THEN NULL ELSE claimed_by END,
    claim_expires_at = CASE status WHEN 'pending' THEN NULL ELSE claim_expires_at END
WHERE tenant = %(tenant)s AND thread_id = %(thread)s AND ended_at IS NULL
  AND (%(only)s::uuid IS NULL OR id = %(only)s)
  AND (%(before)s::uuid IS NULL
       OR (created_at, id) < (SELECT mine.created_at, mine.id FROM runs.runs AS mine WHERE mine.id = %(before)s))
RETURNING id::text, status, thread_id

-- name: get
SELECT id::text, thread_id, tenant, user_id, graph, assistant_id::text, metadata, queue, status, kwargs,
       multitask_strategy, priority, attempt, created_at, started_at, ended_at, claimed_by::text, cancel_action, cancel_reason, error
FROM runs.runs WHERE id = ANY(%(ids)s)

-- name: list
-- A thread that is being erased is held by a row without a graph.
SELECT id::text, thread_id, tenant, user_id, graph, assistant_id::text, metadata, queue, status, NULL AS kwargs,
       multitask_strategy, priority, attempt, created_at, started_at, ended_at, claimed_by::text, cancel_action, cancel_reason, error
FROM runs.runs
WHERE tenant = %(tenant)s AND graph <> ''
  AND (%(thread)s::text IS NULL OR thread_id = %(thread)s) AND (%(status)s::text IS NULL OR status = %(status)s)
  AND (%(graph)s::text IS NULL OR graph = %(graph)s)
ORDER BY created_at DESC, id LIMIT %(limit)s OFFSET %(offset)s

-- name: count_open
SELECT queue, tenant, status, coalesce(claimed_by::text, '') AS replica, count(*) AS runs,
       extract(epoch FROM now() - min(created_at))::float8 AS oldest_seconds
FROM runs.runs WHERE ended_at IS NULL AND tenant IN (
    SELECT tenant FROM runs.runs WHERE ended_at IS NULL GROUP BY tenant ORDER BY count(*) DESC LIMIT %(tenants)s
)
GROUP BY queue, tenant, status, claimed_by

-- name: delete_ended
DELETE FROM runs.runs WHERE id IN (
    SELECT id FROM runs.runs WHERE created_at < now() - %(days)s * interval '1 day' AND ended_at IS NOT NULL
    LIMIT %(limit)s
)

-- name: delete_run
DELETE FROM runs.runs WHERE id = %(id)s AND ended_at IS NOT NULL RETURNING id

-- name: drop_thread
DELETE FROM runs.threads WHERE id = %(thread)s AND NOT EXISTS (SELECT FROM runs.runs WHERE thread_id = %(thread)s)
RETURNING id

-- name: own_thread
-- Gives a thread's id to a tenant, and returns whose it is.
WITH taken AS (
    INSERT INTO runs.threads (id, tenant, user_id) VALUES (%(thread)s, %(tenant)s, %(user)s)
    ON CONFLICT (id) DO NOTHING RETURNING tenant, graph
)
SELECT tenant, graph FROM taken UNION ALL SELECT tenant, graph FROM runs.threads WHERE id = %(thread)s LIMIT 1

-- name: get_thread
SELECT tenant, graph FROM runs.threads WHERE id = %(thread)s

-- name: hold_thread
-- Only one of two people who take a conversation over at once finds nobody there.
UPDATE runs.threads SET held_by = %(user)s, held_at = CASE held_by WHEN %(user)s THEN held_at ELSE now() END
WHERE id = %(thread)s AND tenant = %(tenant)s AND (held_by IN ('', %(user)s) OR %(take_over)s)
RETURNING id

-- name: free_thread
UPDATE runs.threads SET held_by = '', held_at = NULL, metadata = metadata || '{"needs_person": false}'
WHERE id = %(thread)s AND tenant = %(tenant)s AND (held_by IN ('', %(user)s) OR %(take_over)s)
RETURNING id

-- name: get_holder
SELECT held_by FROM runs.threads WHERE id = %(thread)s AND tenant = %(tenant)s

-- name: find_open
SELECT id::text FROM runs.runs WHERE thread_id = %(thread)s AND ended_at IS NULL AND id::text <> %(except)s LIMIT 1

-- name: erase_runs
DELETE FROM runs.runs WHERE thread_id = %(thread)s

-- name: erase_thread
DELETE FROM runs.threads WHERE id = %(thread)s

-- name: publish_parts
WITH published AS (
    INSERT INTO runs.parts (run_id, seq, came_at, part)
    SELECT unnest(%(runs)s::uuid[]), unnest(%(seqs)s::bigint[]), unnest(%(times)s::bigint[]),
           unnest(%(parts)s::bytea[])
    ON CONFLICT DO NOTHING
)
SELECT pg_notify(%(channel)s, 'parts')

-- name: read_parts
SELECT run_id::text, seq, came_at, part FROM unnest(%(runs)s::uuid[], %(after)s::bigint[]) AS wanted (run, after)
JOIN runs.parts ON run_id = wanted.run AND seq > wanted.after
ORDER BY run_id, seq LIMIT %(limit)s

-- name: delete_parts
-- Of runs that have ended, after a time in which a caller may connect again.
DELETE FROM runs.parts WHERE at < now() - %(seconds)s * interval '1 second' AND NOT EXISTS (
    SELECT FROM runs.runs WHERE id = run_id AND (ended_at IS NULL OR ended_at > now() - %(seconds)s * interval '1 second')
)

-- name: list_begun
-- The latest runs of a thread that have begun or ended, in that order.
SELECT id, graph, ended_at FROM (
    SELECT id::text, graph, status, started_at, ended_at FROM runs.runs
    WHERE thread_id = %(thread)s AND tenant = %(tenant)s AND graph <> ''
    ORDER BY created_at DESC, id DESC LIMIT %(limit)s
) AS latest
WHERE status <> 'pending' ORDER BY coalesce(started_at, ended_at), id

-- name: load_activity
-- When a run last began or ended on each of some threads.
SELECT thread.id, run.at FROM unnest(%(threads)s::text[]) AS thread (id) CROSS JOIN LATERAL (
    SELECT max(greatest(latest.started_at, latest.ended_at)) AS at FROM (
        SELECT started_at, ended_at FROM runs.runs
        WHERE thread_id = thread.id ORDER BY created_at DESC LIMIT %(limit)s
    ) AS latest
) AS run
