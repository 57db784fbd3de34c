-- Queries of service/webhooks/endpoints.py and deliveries.py.

-- name: create
INSERT INTO outbox.endpoints (tenant, url, description, types, secret)
SELECT %(tenant)s, %(url)s, %(description)s, %(types)s, %(secret)s
WHERE %(limit)s > (SELECT count(*) FROM outbox.endpoints WHERE tenant = %(tenant)s AND NOT is_for_runs)
RETURNING *

-- name: ensure_for_runs
-- The tenant's endpoint for an address that runs name. The update makes the statement return a known one.
INSERT INTO outbox.endpoints AS known (tenant, url, description, types, secret, is_for_runs)
VALUES (%(tenant)s, %(url)s, 'Webhook of runs', '{}', %(secret)s, true)
ON CONFLICT (tenant, url) WHERE is_for_runs DO UPDATE SET url = known.url
RETURNING id

-- name: list
SELECT endpoint.*, (
    SELECT count(*) FROM outbox.deliveries WHERE endpoint_id = endpoint.id AND status = 'pending'
) AS pending
FROM outbox.endpoints AS endpoint
WHERE tenant = %(tenant)s AND (%(id)s::uuid IS NULL OR id = %(id)s)
ORDER BY created_at, id LIMIT %(limit)s OFFSET %(offset)s

-- name: update
UPDATE outbox.endpoints
SET url = coalesce(%(url)s, url), description = coalesce(%(description)s, description),
    types = CASE WHEN %(sets_types)s THEN %(types)s ELSE types END,
    is_enabled = coalesce(%(is_enabled)s, is_enabled),
    disabled_reason = CASE WHEN %(is_enabled)s THEN '' ELSE disabled_reason END,
    failing_since = CASE WHEN %(is_enabled)s THEN NULL ELSE failing_since END
WHERE tenant = %(tenant)s AND id = %(id)s
RETURNING *

-- name: rotate
UPDATE outbox.endpoints
SET previous_secret = secret, previous_until = now() + %(hours)s * interval '1 hour', secret = %(secret)s
WHERE tenant = %(tenant)s AND id = %(id)s
RETURNING *

-- name: delete
DELETE FROM outbox.endpoints WHERE tenant = %(tenant)s AND id = %(id)s RETURNING id

-- name: suspend
-- What is due at a disabled endpoint waits until it is enabled.
UPDATE outbox.deliveries SET due_at = 'infinity'
WHERE endpoint_id = %(id)s AND status = 'pending' AND due_at <> 'infinity'

-- name: resume
-- Begins the first pending delivery of each thread to an enabled endpoint, or to all of them: an event that is written
-- while its endpoint is enabled may leave one without a time.
UPDATE outbox.deliveries AS delivery SET due_at = now(), since = now()
FROM outbox.endpoints AS endpoint
WHERE (%(id)s::uuid IS NULL OR endpoint.id = %(id)s) AND endpoint.is_enabled AND delivery.endpoint_id = endpoint.id
  AND delivery.status = 'pending' AND delivery.due_at = 'infinity'
  AND (delivery.thread_id = '' OR NOT EXISTS (
      SELECT FROM outbox.deliveries AS earlier
      WHERE earlier.endpoint_id = delivery.endpoint_id AND earlier.thread_id = delivery.thread_id
        AND earlier.status = 'pending' AND earlier.position < delivery.position
  ))

-- name: disable_failing
UPDATE outbox.endpoints SET is_enabled = false, disabled_reason = %(reason)s
WHERE is_enabled AND failing_since < now() - %(hours)s * interval '1 hour'
RETURNING id::text, tenant, url

-- name: disable
UPDATE outbox.endpoints SET is_enabled = false, disabled_reason = %(reason)s WHERE id = %(id)s AND is_enabled
RETURNING tenant, url

-- name: list_deliveries
SELECT delivery.id, delivery.position, delivery.event_id, event.type, delivery.thread_id, event.at AS created_at,
       delivery.status, delivery.attempts, nullif(delivery.due_at, 'infinity') AS due_at, delivery.ended_at,
       delivery.response_status, delivery.error
FROM outbox.deliveries AS delivery JOIN outbox.events AS event ON event.id = delivery.event_id
WHERE delivery.endpoint_id = %(endpoint)s AND delivery.tenant = %(tenant)s
  AND (%(status)s::text IS NULL OR delivery.status = %(status)s)
  AND (%(before)s::bigint IS NULL OR delivery.position < %(before)s)
ORDER BY delivery.position DESC LIMIT %(limit)s

-- name: redeliver
-- One delivery that has ended, or all that were given up.
UPDATE outbox.deliveries
SET status = 'pending', attempts = 0, due_at = 'infinity', ended_at = NULL, response_status = NULL, error = ''
WHERE endpoint_id = %(endpoint)s AND tenant = %(tenant)s
  AND CASE WHEN %(id)s::uuid IS NULL THEN status = 'dead' ELSE id = %(id)s AND status <> 'pending' END

-- name: claim
-- Claims deliveries that are due, a few of each endpoint, one of an endpoint that fails. They are due again when the
-- claim is over, if nothing was recorded until then.
WITH due AS (
    SELECT id, endpoint_id, due_at, row_number() OVER (PARTITION BY endpoint_id ORDER BY due_at) AS rank
    FROM (
        SELECT id, endpoint_id, due_at FROM outbox.deliveries
        WHERE status = 'pending' AND due_at <= now() AND endpoint_id <> ALL (%(busy)s::uuid[])
        ORDER BY due_at LIMIT 500
    ) AS oldest
), chosen AS (
    SELECT id FROM outbox.deliveries WHERE status = 'pending' AND due_at <= now() AND id IN (
        SELECT due.id FROM due JOIN outbox.endpoints AS endpoint ON endpoint.id = due.endpoint_id
        WHERE endpoint.is_enabled
          AND rank <= CASE WHEN endpoint.failing_since IS NULL THEN %(per_endpoint)s ELSE 1 END
        ORDER BY due.due_at LIMIT %(limit)s
    )
    FOR UPDATE SKIP LOCKED
)
UPDATE outbox.deliveries AS delivery
SET attempts = delivery.attempts + 1, due_at = now() + %(claim_seconds)s * interval '1 second'
FROM chosen, outbox.endpoints AS endpoint, outbox.events AS event
WHERE delivery.id = chosen.id AND endpoint.id = delivery.endpoint_id AND event.id = delivery.event_id
RETURNING delivery.id AS delivery_id, delivery.attempts, extract(epoch FROM now() - delivery.since)::float8 AS age,
          endpoint.id AS endpoint_id, endpoint.url, endpoint.secret, endpoint.failing_since IS NOT NULL AS is_failing,
          CASE WHEN endpoint.previous_until > now() THEN endpoint.previous_secret END AS previous_secret,
          event.*

-- name: finish
SELECT outbox.finish(
    %(id)s, %(attempt)s, %(outcome)s, now() + %(pause)s * interval '1 second', %(http_status)s, %(fault)s
) AS is_recorded

-- name: measure
-- What /metrics shows: deliveries that wait, and how long the first of them has been due.
SELECT count(*) AS waiting, coalesce(extract(epoch FROM now() - min(due_at)), 0)::float8 AS oldest_seconds
FROM outbox.deliveries WHERE status = 'pending' AND due_at <= now()
