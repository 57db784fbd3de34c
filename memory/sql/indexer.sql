-- Queries of memory/indexer.py.

-- name: queue_all
INSERT INTO memory.unembedded (unit, later)
SELECT id, part >= %s FROM memory.units
WHERE NOT EXISTS (SELECT FROM memory.vectors WHERE vectors.unit = units.id AND model = %s)
ON CONFLICT (unit) DO NOTHING

-- name: lease
WITH leased AS (
    UPDATE memory.unembedded SET leased_until = now() + %(seconds)s * interval '1 second'
    WHERE unit IN (
        SELECT unit FROM memory.unembedded WHERE leased_until < now()
        ORDER BY later, unit DESC LIMIT %(batch)s FOR UPDATE SKIP LOCKED
    )
    RETURNING unit, leased_until
)
SELECT leased.unit, leased_until, units.scope, units.date, units.text, coalesce(before.text, '') AS before
FROM leased JOIN memory.units ON units.id = leased.unit
LEFT JOIN LATERAL (
    SELECT b.text FROM memory.units AS b
    WHERE b.scope = units.scope AND b.session_id = units.session_id
      AND (b.at, b.message, b.part) < (units.at, units.message, units.part)
    ORDER BY b.at DESC, b.message DESC, b.part DESC LIMIT 1
) AS before ON true

-- name: store
-- A unit may have been forgotten meanwhile. The lock keeps an existing one until its vector is stored.
INSERT INTO memory.vectors (scope, unit, model, large, embedding)
SELECT units.scope, units.id, %s, scopes.large, made.embedding::halfvec
FROM unnest(%s::bigint[], %s::text[]) AS made (unit, embedding)
JOIN memory.units ON units.id = made.unit
JOIN memory.scopes ON scopes.id = units.scope
ORDER BY units.id
FOR KEY SHARE OF units, scopes
ON CONFLICT (unit, model) DO UPDATE SET embedding = excluded.embedding

-- name: list_grown_scopes
SELECT id FROM memory.scopes
WHERE id = ANY(%(scopes)s) AND NOT large AND %(limit)s < (
    SELECT count(*) FROM (SELECT FROM memory.vectors WHERE scope = scopes.id LIMIT %(limit)s + 1) AS counted
)

-- name: delete_retired
DELETE FROM memory.vectors WHERE ctid IN (
    SELECT ctid FROM memory.vectors WHERE model <> %s LIMIT %s
)
