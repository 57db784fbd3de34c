"""Copy a thread: its checkpoints with all that they refer to."""

from typing import Final

from core.postgres import Connection

# Writes come last: a trigger records interrupts, and reads the checkpoint they belong to.
COPY_SQL: Final = (
    """INSERT INTO checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob)
    SELECT %(target)s, checkpoint_ns, channel, version, type, blob FROM checkpoint_blobs
    WHERE thread_id = %(source)s""",
    """INSERT INTO checkpoints
        (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata)
    SELECT %(target)s, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint,
        CASE WHEN metadata ? 'thread_id' THEN jsonb_set(metadata, '{thread_id}', to_jsonb(%(target)s::text))
             ELSE metadata END
    FROM checkpoints WHERE thread_id = %(source)s""",
    """INSERT INTO checkpoint_writes
        (thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob)
    SELECT %(target)s, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob
    FROM checkpoint_writes WHERE thread_id = %(source)s""",
)


async def copy_checkpoints(connection: Connection, source: str, target: str) -> None:
    """Copy a thread's checkpoints to a thread that has none, within the caller's transaction."""
    for statement in COPY_SQL:
        await connection.execute(statement, {"source": source, "target": target})
