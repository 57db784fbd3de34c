"""The checkpointer the graphs are compiled with."""

from contextlib import nullcontext

from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from checkpoints.migrations import migrate, serialised
from checkpoints.pool import Pool


class PooledSaver(AsyncPostgresSaver):
    """The saver without its one lock, which is there for a single connection: here each use borrows its own.

    With the lock all threads wait for each other's reads and writes, and while the database is away each
    waits out the time limit of the one before it.
    """

    def __init__(self, pool: Pool, serde: JsonPlusSerializer) -> None:
        super().__init__(pool, serde=serde)
        self.lock = nullcontext()  # type: ignore[assignment]  # entered and left, nothing else


async def open_saver(pool: Pool) -> AsyncPostgresSaver:
    """A saver over the pool, its tables made or migrated.

    Deserialisation is strict: a row written by someone else cannot make the service import and call
    what it names. States therefore hold messages and plain JSON values only.
    """
    saver = PooledSaver(pool, JsonPlusSerializer(allowed_msgpack_modules=None))
    async with serialised(pool):
        await saver.setup()
        await migrate(pool)
    return saver
