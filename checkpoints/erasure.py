"""Take a whole thread out of the checkpoint tables."""

from psycopg import AsyncConnection
from psycopg.rows import DictRow

# Every namespace: the thread's own and those of the subgraphs it called.
ERASE_SQL = (
    "DELETE FROM checkpoint_writes WHERE thread_id = %s",
    "DELETE FROM checkpoint_blobs WHERE thread_id = %s",
    "DELETE FROM checkpoints WHERE thread_id = %s",
)


async def erase_checkpoints(connection: AsyncConnection[DictRow], thread_id: str) -> None:
    """Delete a thread's checkpoints, their writes and their values, in the caller's transaction."""
    for statement in ERASE_SQL:
        await connection.execute(statement, (thread_id,))
