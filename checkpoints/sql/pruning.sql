-- Queries of checkpoints/pruning.py.

-- name: list_lineage
-- Newest first. ``replayed`` are the delta channels whose value a checkpoint does not hold itself: it is that
-- of an ancestor with the writes since. LangGraph counts these writes in the metadata.
WITH delta AS (
    SELECT DISTINCT jsonb_object_keys(metadata -> 'counters_since_delta_snapshot') AS channel
    FROM checkpoints WHERE thread_id = %(thread)s AND checkpoint_ns = ''
)
SELECT checkpoint_id, parent_checkpoint_id AS parent_id, ARRAY(
    SELECT channel FROM delta
    WHERE checkpoint -> 'channel_versions' ? channel
      AND NOT checkpoint -> 'channel_values' ? channel
      AND NOT EXISTS (
          SELECT FROM checkpoint_blobs AS stored
          WHERE stored.thread_id = checkpoints.thread_id AND stored.checkpoint_ns = ''
            AND stored.channel = delta.channel
            AND stored.version = checkpoint -> 'channel_versions' ->> delta.channel
            AND stored.type <> 'empty')
) AS replayed
FROM checkpoints WHERE thread_id = %(thread)s AND checkpoint_ns = ''
ORDER BY checkpoint_id DESC

-- name: list_calls
-- A subgraph's call has a namespace of its own, with its task's id after a colon, and names the checkpoint it
-- was called from. A subgraph that keeps state between calls has no colon, and stays.
SELECT DISTINCT checkpoint_ns FROM checkpoints
WHERE thread_id = %(thread)s AND checkpoint_ns LIKE '%%:%%'
  AND metadata -> 'parents' ->> '' = ANY(%(deleted)s)

-- name: measure
-- The size of the rows, without indexes.
SELECT (SELECT coalesce(sum(pg_column_size(c)), 0) FROM checkpoints AS c
        WHERE thread_id = %(thread)s AND (checkpoint_ns = '' AND checkpoint_id = ANY(%(deleted)s)
                                          OR checkpoint_ns = ANY(%(calls)s)))
     + (SELECT coalesce(sum(pg_column_size(w)), 0) FROM checkpoint_writes AS w
        WHERE thread_id = %(thread)s AND (checkpoint_ns = '' AND checkpoint_id = ANY(%(deleted)s)
                                          OR checkpoint_ns = ANY(%(calls)s)))
     + (SELECT coalesce(sum(pg_column_size(b)), 0) FROM checkpoint_blobs AS b
        WHERE thread_id = %(thread)s AND checkpoint_ns = ANY(%(calls)s)) AS bytes

-- name: list_unused_values
-- Values that only these checkpoints refer to. Each is looked up by its key: a join would be planned from the
-- size of an average thread.
SELECT unused.channel, unused.version, stored.bytes FROM (
    SELECT named.key AS channel, named.value AS version
    FROM checkpoints CROSS JOIN LATERAL jsonb_each_text(checkpoint -> 'channel_versions') AS named
    WHERE thread_id = %(thread)s AND checkpoint_ns = '' AND checkpoint_id = ANY(%(deleted)s)
    EXCEPT
    SELECT named.key, named.value
    FROM checkpoints CROSS JOIN LATERAL jsonb_each_text(checkpoint -> 'channel_versions') AS named
    WHERE thread_id = %(thread)s AND checkpoint_ns = '' AND checkpoint_id <> ALL(%(deleted)s)
) AS unused CROSS JOIN LATERAL (
    SELECT pg_column_size(checkpoint_blobs) AS bytes FROM checkpoint_blobs
    WHERE thread_id = %(thread)s AND checkpoint_ns = ''
      AND channel = unused.channel AND version = unused.version
    LIMIT 1
) AS stored

-- name: delete_values
DELETE FROM checkpoint_blobs
WHERE thread_id = %(thread)s AND checkpoint_ns = '' AND channel = %(channel)s AND version = ANY(%(versions)s)
