-- Queries of the saver. Each change is one statement, so that nobody sees half of it.

-- name: delete_thread
-- Each change is one statement, so that nobody sees half of it.
WITH deleted_writes AS (DELETE FROM checkpoint_writes WHERE thread_id = %(thread)s),
     deleted_blobs AS (DELETE FROM checkpoint_blobs WHERE thread_id = %(thread)s)
DELETE FROM checkpoints WHERE thread_id = %(thread)s

-- name: copy_thread
-- A thread is copied as a whole, because a delta channel is rebuilt from the writes of all its ancestors. Rows
-- that the target already has are kept.
WITH copied_blobs AS (
    INSERT INTO checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob)
    SELECT %(target)s, checkpoint_ns, channel, version, type, blob
    FROM checkpoint_blobs WHERE thread_id = %(source)s
    ON CONFLICT DO NOTHING
), copied_writes AS (
    INSERT INTO checkpoint_writes
        (thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob)
    SELECT %(target)s, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob
    FROM checkpoint_writes WHERE thread_id = %(source)s
    ON CONFLICT DO NOTHING
)
INSERT INTO checkpoints
    (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata)
SELECT %(target)s, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata
FROM checkpoints WHERE thread_id = %(source)s
ON CONFLICT DO NOTHING

-- name: delete_runs
-- Deletes the checkpoints with their writes, and the blobs that no other checkpoint of the same thread and
-- namespace refers to.
WITH deleted AS (
    DELETE FROM checkpoints WHERE metadata ->> 'run_id' = ANY(%(runs)s)
    RETURNING thread_id, checkpoint_ns, checkpoint_id, checkpoint -> 'channel_versions' AS versions
), deleted_writes AS (
    DELETE FROM checkpoint_writes USING deleted
    WHERE checkpoint_writes.thread_id = deleted.thread_id
      AND checkpoint_writes.checkpoint_ns = deleted.checkpoint_ns
      AND checkpoint_writes.checkpoint_id = deleted.checkpoint_id
), released AS (
    SELECT thread_id, checkpoint_ns, key AS channel, value AS version
    FROM deleted CROSS JOIN LATERAL jsonb_each_text(versions)
), referenced AS (
    SELECT kept.thread_id, kept.checkpoint_ns, key AS channel, value AS version
    FROM (SELECT DISTINCT thread_id, checkpoint_ns FROM deleted) AS affected
    JOIN checkpoints AS kept USING (thread_id, checkpoint_ns)
    CROSS JOIN LATERAL jsonb_each_text(kept.checkpoint -> 'channel_versions')
    WHERE kept.metadata ->> 'run_id' IS NULL OR kept.metadata ->> 'run_id' <> ALL(%(runs)s)
), garbage AS (
    SELECT * FROM released EXCEPT SELECT * FROM referenced
)
DELETE FROM checkpoint_blobs USING garbage
WHERE checkpoint_blobs.thread_id = garbage.thread_id
  AND checkpoint_blobs.checkpoint_ns = garbage.checkpoint_ns
  AND checkpoint_blobs.channel = garbage.channel
  AND checkpoint_blobs.version = garbage.version

-- name: select_checkpoints
-- Checkpoints with their values and pending writes, looked up by whole keys; callers add WHERE and ORDER BY.
SELECT thread_id, checkpoint, checkpoint_ns, checkpoint_id, parent_checkpoint_id, metadata,
       (SELECT array_agg(ARRAY[named.key::bytea, stored.type::bytea, stored.blob])
        FROM jsonb_each_text(checkpoint -> 'channel_versions') AS named
        CROSS JOIN LATERAL (
            SELECT type, blob FROM checkpoint_blobs
            WHERE checkpoint_blobs.thread_id = checkpoints.thread_id
              AND checkpoint_blobs.checkpoint_ns = checkpoints.checkpoint_ns
              AND channel = named.key AND version = named.value
            LIMIT 1
        ) AS stored) AS channel_values,
       (SELECT array_agg(ARRAY[task_id::bytea, channel::bytea, type::bytea, blob,
                               convert_to(task_path, 'UTF8'), idx::text::bytea])
        FROM checkpoint_writes
        WHERE checkpoint_writes.thread_id = checkpoints.thread_id
          AND checkpoint_writes.checkpoint_ns = checkpoints.checkpoint_ns
          AND checkpoint_writes.checkpoint_id = checkpoints.checkpoint_id) AS pending_writes
FROM checkpoints

-- name: list_new_writes
-- The checkpoints from a target's parent back to a cached one, each with its writes. ``reached`` tells whether
-- the walk got there, ``stored`` whether a checkpoint on the way holds a full value. Rows are looked up by
-- their whole key (``LATERAL ... LIMIT``), because a join would be planned
-- from the size of an average thread.
WITH RECURSIVE path AS (
    SELECT checkpoint_id, parent_checkpoint_id, checkpoint, 0 AS steps FROM checkpoints
    WHERE thread_id = %(thread)s AND checkpoint_ns = %(ns)s AND checkpoint_id = %(target)s
    UNION ALL
    SELECT older.checkpoint_id, older.parent_checkpoint_id, older.checkpoint, steps + 1
    FROM path CROSS JOIN LATERAL (
        SELECT checkpoint_id, parent_checkpoint_id, checkpoint FROM checkpoints
        WHERE thread_id = %(thread)s AND checkpoint_ns = %(ns)s AND checkpoint_id = path.parent_checkpoint_id
        LIMIT 1
    ) AS older
    WHERE path.checkpoint_id <> %(cached)s AND steps < %(max_steps)s
)
SELECT path.steps, path.checkpoint_id = %(cached)s AS reached,
       path.checkpoint -> 'channel_values' ? %(channel)s OR stored.type IS NOT NULL AS stored,
       made.task_path, made.task_id, made.idx, made.type, made.blob
FROM path
LEFT JOIN LATERAL (
    SELECT type FROM checkpoint_blobs
    WHERE thread_id = %(thread)s AND checkpoint_ns = %(ns)s AND channel = %(channel)s
      AND version = path.checkpoint -> 'channel_versions' ->> %(channel)s AND type <> 'empty'
    LIMIT 1
) AS stored ON true
LEFT JOIN LATERAL (
    SELECT task_path, task_id, idx, type, blob FROM checkpoint_writes
    WHERE thread_id = %(thread)s AND checkpoint_ns = %(ns)s AND checkpoint_id = path.checkpoint_id
      AND channel = %(channel)s
    OFFSET 0
) AS made ON true
WHERE path.steps > 0
