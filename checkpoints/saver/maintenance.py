"""What is done to whole threads and runs: SQL that never joins two large sets of a thread's rows."""

# One statement each, so that nobody sees half of it.
DELETE_THREAD_SQL = """
WITH gone_writes AS (DELETE FROM checkpoint_writes WHERE thread_id = %(thread)s),
     gone_blobs AS (DELETE FROM checkpoint_blobs WHERE thread_id = %(thread)s)
DELETE FROM checkpoints WHERE thread_id = %(thread)s
"""

# A copy of a thread is the whole of it: a delta channel is rebuilt from all its ancestors' writes. What the
# target has already is kept.
COPY_THREAD_SQL = """
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
"""

# The writes go with their checkpoints, and the blobs that only those checkpoints name. A blob is kept while
# any other checkpoint of its thread and namespace names it.
DELETE_RUNS_SQL = """
WITH gone AS (
    DELETE FROM checkpoints WHERE metadata ->> 'run_id' = ANY(%(runs)s)
    RETURNING thread_id, checkpoint_ns, checkpoint_id, checkpoint -> 'channel_versions' AS versions
), gone_writes AS (
    DELETE FROM checkpoint_writes USING gone
    WHERE checkpoint_writes.thread_id = gone.thread_id
      AND checkpoint_writes.checkpoint_ns = gone.checkpoint_ns
      AND checkpoint_writes.checkpoint_id = gone.checkpoint_id
), freed AS (
    SELECT thread_id, checkpoint_ns, key AS channel, value AS version
    FROM gone CROSS JOIN LATERAL jsonb_each_text(versions)
), named AS (
    SELECT kept.thread_id, kept.checkpoint_ns, key AS channel, value AS version
    FROM (SELECT DISTINCT thread_id, checkpoint_ns FROM gone) AS touched
    JOIN checkpoints AS kept USING (thread_id, checkpoint_ns)
    CROSS JOIN LATERAL jsonb_each_text(kept.checkpoint -> 'channel_versions')
    WHERE kept.metadata ->> 'run_id' IS NULL OR kept.metadata ->> 'run_id' <> ALL(%(runs)s)
), garbage AS (
    SELECT * FROM freed EXCEPT SELECT * FROM named
)
DELETE FROM checkpoint_blobs USING garbage
WHERE checkpoint_blobs.thread_id = garbage.thread_id
  AND checkpoint_blobs.checkpoint_ns = garbage.checkpoint_ns
  AND checkpoint_blobs.channel = garbage.channel
  AND checkpoint_blobs.version = garbage.version
"""
