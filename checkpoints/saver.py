"""The checkpointer the graphs are compiled with."""

from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from checkpoints.migrations import migrate, serialised
from checkpoints.pool import Pool


async def open_saver(pool: Pool) -> AsyncPostgresSaver:
    """A saver over the pool, its tables made or migrated.

    Deserialisation is strict: a row written by someone else cannot make the service import and call
    what it names. States therefore hold messages and plain JSON values only.
    """
    saver = AsyncPostgresSaver(pool, serde=JsonPlusSerializer(allowed_msgpack_modules=None))
    async with serialised(pool):
        await saver.setup()
        await migrate(pool)
    return saver
