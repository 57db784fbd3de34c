"""Migrations of the checkpoint tables: the stock saver's, then ours."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver

from checkpoints.pool import connect
from core import postgres
from core.postgres import Connection, Pool

SQL_FOLDER: Final = Path(__file__).parent / "sql"
# The schema that records our migrations. The tables themselves are LangGraph's, on the default search path.
SCHEMA: Final = "checkpoints"
# Position is version: append, never edit or reorder. They run after the stock saver's own.
MIGRATIONS: Final = ((SQL_FOLDER / "0001_checkpoints.sql").read_bytes(),)

# The advisory lock of these migrations; any fixed number will do.
LOCK_ID: Final = 0x76_65_6E_74_72_6F_73
# Bound to the transaction, because a pooler may give each statement another session. Polled, because a
# waiting statement holds a snapshot, and the stock saver's CREATE INDEX CONCURRENTLY would wait for that in
# turn.
LOCK_SQL: Final = f"SELECT pg_try_advisory_xact_lock({LOCK_ID}) AS is_held".encode()
LOCK_POLL_SECONDS: Final = 0.1


async def migrate(pool: Pool, saver: AsyncPostgresSaver) -> None:
    """Bring the checkpoint tables up to date; replicas that start together take turns.

    Raises:
        psycopg.Error: The database cannot be reached, or refuses.
    """
    async with _migration_lock(pool):
        await saver.setup()
        await postgres.migrate(pool, SCHEMA, MIGRATIONS)


@asynccontextmanager
async def _migration_lock(pool: Pool) -> AsyncIterator[None]:
    # On a connection outside the pool, which may be no larger than the migrations need.
    async with await connect(pool) as connection, connection.transaction():
        while not await _try_lock(connection):  # noqa: ASYNC110 - another process releases it
            await asyncio.sleep(LOCK_POLL_SECONDS)
        yield


async def _try_lock(connection: Connection) -> bool:
    # Neither prepared nor with parameters: a portal would keep a snapshot.
    row = await (await connection.execute(LOCK_SQL, prepare=False)).fetchone()
    return bool(row and row["is_held"])
