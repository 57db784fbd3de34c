-- Queries of memory/graph.py.

-- name: upsert_nodes
-- Sorted, and without writing unchanged labels, so that two callers cannot deadlock.
WITH given AS (
    SELECT DISTINCT ON (kind, key) kind, key, label
    FROM unnest(%(kinds)s::text[], %(keys)s::text[], %(labels)s::text[])
        WITH ORDINALITY AS given (kind, key, label, place)
    ORDER BY kind, key, place DESC
), written AS (
    INSERT INTO memory.nodes (scope, kind, key, label)
    SELECT %(scope)s, kind, key, label FROM given ORDER BY kind, key
    ON CONFLICT (scope, kind, key) DO UPDATE SET label = excluded.label
        -- A caller who knows no name passes the key, which must not replace a name.
        WHERE nodes.label <> excluded.label AND excluded.label <> excluded.key
    RETURNING id, kind, key
)
SELECT id, kind, key FROM written
UNION
SELECT nodes.id, kind, key FROM memory.nodes JOIN given USING (kind, key) WHERE scope = %(scope)s

-- name: list_neighbourhood
WITH RECURSIVE scope AS MATERIALIZED (
    SELECT id FROM memory.scopes WHERE tenant = %(tenant)s AND contact_id = %(contact)s
), holding AS MATERIALIZED (
    SELECT id, source, target FROM memory.edges
    WHERE scope = (SELECT id FROM scope) AND (%(type)s = '' OR type = %(type)s)
      AND valid_from <= coalesce(%(as_of)s, now())
      AND coalesce(valid_to, 'infinity') > coalesce(%(as_of)s, now())
      AND recorded_at <= %(believed_at)s::timestamptz
      AND (superseded_at IS NULL OR superseded_at > %(believed_at)s::timestamptz)
), walk AS (
    SELECT id AS node, 0 AS hops FROM memory.nodes WHERE scope = (SELECT id FROM scope) AND key = %(key)s
    UNION
    SELECT CASE WHEN source = node THEN target ELSE source END, hops + 1
    FROM walk JOIN holding ON node IN (source, target) WHERE hops < %(depth)s
), reached AS (
    SELECT node, min(hops) AS hops FROM walk GROUP BY node
), found AS (
    SELECT holding.id, min(hops) AS hops FROM reached JOIN holding ON node IN (source, target)
    WHERE hops < %(depth)s GROUP BY holding.id ORDER BY hops, holding.id LIMIT %(limit)s
)
SELECT source.kind AS source_kind, source.key AS source_key, source.label AS source_label,
       target.kind AS target_kind, target.key AS target_key, target.label AS target_label,
       type, valid_from, valid_to, source_message_id
FROM found JOIN memory.edges USING (id)
JOIN memory.nodes AS source ON source.id = edges.source
JOIN memory.nodes AS target ON target.id = edges.target
ORDER BY hops, found.id
