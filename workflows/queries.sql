-- Queries of workflows/store.py.

-- name: add
-- Returns how many of the tenant's queued runs are as urgent or more, counting to a limit.
WITH own AS (
    SELECT max(turn) AS latest, least(count(*), %(limit)s) AS runs FROM workflows.runs
    WHERE tenant = %(tenant)s AND status = 'queued' AND priority >= %(priority)s
), every AS (
    SELECT coalesce(min(turn), 0) AS first FROM workflows.runs WHERE status = 'queued'
)
INSERT INTO workflows.runs (id, tenant, user_id, client_id, name, definition, input, priority, turn)
SELECT %(id)s, %(tenant)s, %(user_id)s, %(client_id)s, %(name)s, %(definition)s, %(input)s, %(priority)s,
       greatest(own.latest + 1, every.first + own.runs)
FROM own, every
ON CONFLICT (tenant, client_id) WHERE client_id <> '' DO NOTHING
RETURNING *, (SELECT runs FROM own) AS ahead

-- name: get_by_client_id
SELECT * FROM workflows.runs WHERE tenant = %(tenant)s AND client_id = %(client_id)s

-- name: get
SELECT * FROM workflows.runs WHERE tenant = %(tenant)s AND id = %(id)s

-- name: load
-- Waits until whoever is sending the run a signal has committed it.
SELECT * FROM workflows.runs WHERE id = %(id)s FOR UPDATE

-- name: list
-- Leaves out the columns that may be large.
SELECT id, tenant, user_id, client_id, name, priority, status, error, created_at, started_at, ended_at, wake_at
FROM workflows.runs
WHERE tenant = %(tenant)s AND (%(status)s::text IS NULL OR status = %(status)s)
  AND (%(name)s::text IS NULL OR name = %(name)s)
ORDER BY created_at DESC, id LIMIT %(limit)s OFFSET %(offset)s

-- name: count
SELECT status, count(*) AS runs FROM workflows.runs
WHERE tenant = %(tenant)s AND status IN ('queued', 'running', 'waiting') GROUP BY status

-- name: list_due
-- A run whose process died is running although nothing executes its thread.
SELECT id, 0 AS turn FROM workflows.runs AS run
WHERE status = 'running'
  AND NOT EXISTS (SELECT FROM runs.runs AS open WHERE open.thread_id = run.id AND open.ended_at IS NULL)
UNION ALL (
    SELECT id, first + row_number() OVER (PARTITION BY tenant ORDER BY wake_at) AS turn
    FROM workflows.runs, (SELECT coalesce(min(turn), 0) AS first FROM workflows.runs WHERE status = 'queued') AS queue
    WHERE status = 'waiting' AND wake_at <= now() ORDER BY turn LIMIT %(limit)s
) UNION ALL (
    SELECT id, turn FROM workflows.runs WHERE status = 'queued'
    ORDER BY turn, priority DESC, created_at LIMIT %(limit)s
)

-- name: begin
-- A run that is to be cancelled, or that somebody else has begun since the caller looked, does not begin.
UPDATE workflows.runs
SET status = 'running', attempt = attempt + 1, started_at = coalesce(started_at, now()),
    interruptions = interruptions + CASE WHEN %(was_cut_off)s THEN 1 ELSE 0 END
WHERE id = %(id)s AND ended_at IS NULL AND NOT cancel_requested
  AND (%(attempt)s::int IS NULL OR attempt = %(attempt)s)
RETURNING attempt

-- name: release
-- Leaves a run that was stopped on its way to the next job, unless it is cancelled.
UPDATE workflows.runs
SET status = CASE WHEN cancel_requested OR %(is_cancelled)s THEN 'cancelled' ELSE 'queued' END,
    ended_at = CASE WHEN cancel_requested OR %(is_cancelled)s THEN now() END
WHERE id = %(id)s AND attempt = %(attempt)s AND ended_at IS NULL
RETURNING status

-- name: mark_waiting
-- A cancellation that came while the run was in progress takes effect here.
WITH marked AS (
    UPDATE workflows.runs
    SET status = CASE WHEN cancel_requested THEN 'cancelled' ELSE 'waiting' END,
        ended_at = CASE WHEN cancel_requested THEN now() END,
        wake_at = to_timestamp(%(wake_at)s), interruptions = 0, error = NULL, recovery = NULL
    WHERE id = %(id)s AND attempt = %(attempt)s AND ended_at IS NULL
    RETURNING status, tenant
), announced AS (
    SELECT outbox.add_all(tenant, %(events)s::json) AS events
    FROM marked WHERE status = 'waiting' AND %(events)s::json IS NOT NULL
)
SELECT status, (SELECT events FROM announced) FROM marked

-- name: mark_ended
UPDATE workflows.runs
SET status = %(status)s, error = %(error)s, ended_at = now(), wake_at = NULL, recovery = NULL
WHERE id = %(id)s AND attempt = %(attempt)s AND ended_at IS NULL
RETURNING status

-- name: recover
UPDATE workflows.runs
SET status = 'queued', ended_at = NULL, cancel_requested = false, recovery = %(recovery)s,
    attempt = attempt + 1, interruptions = 0
WHERE id = %(id)s AND attempt = %(attempt)s AND status IN ('waiting', 'succeeded', 'failed', 'cancelled')
RETURNING status

-- name: cancel
-- One in progress is cancelled when it has come to its next step.
UPDATE workflows.runs
SET cancel_requested = true,
    status = CASE WHEN status = 'running' THEN status ELSE 'cancelled' END,
    ended_at = CASE WHEN status = 'running' THEN NULL ELSE now() END
WHERE tenant = %(tenant)s AND id = %(id)s AND ended_at IS NULL
RETURNING *

-- name: lock_for_signal
-- A job that waits already and is about to look for signals waits for the row, and sees this one.
SELECT (SELECT count(*) FROM workflows.signals WHERE run_id = run.id AND interrupt_id IS NULL) AS pending
FROM workflows.runs AS run
WHERE tenant = %(tenant)s AND id = %(id)s AND ended_at IS NULL FOR UPDATE

-- name: add_signal
INSERT INTO workflows.signals (run_id, name, payload) VALUES (%(id)s, %(name)s, %(payload)s)

-- name: get_signal
SELECT payload FROM workflows.signals WHERE run_id = %(id)s AND interrupt_id = %(interrupt_id)s

-- name: take_signal
UPDATE workflows.signals SET interrupt_id = %(interrupt_id)s
WHERE id = (SELECT id FROM workflows.signals
            WHERE run_id = %(id)s AND name = %(name)s AND interrupt_id IS NULL ORDER BY id LIMIT 1)
RETURNING payload

-- name: erase
DELETE FROM workflows.runs WHERE id = %(id)s
