"""Whether the database is there, looked at once a second, so that not every request has to find out.

While it is away the pool refuses at once what would otherwise wait for its whole time limit; what waits
already is refused too. When it is back the pool's connections are made new before they are lent.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import DictRow

from checkpoints.pool import WatchedPool, connect
from core.logging import get_logger
from core.tasks import background

log = get_logger(__name__)

LOOK_SQL: Final = "SELECT 1"
SECONDS_BETWEEN: Final = 1.0
# Long beside the pauses of a busy event loop: being late is not being away.
ANSWER_SECONDS: Final = 5.0
# PostgreSQL, appendix A: too_many_connections. It is there, and those who have a connection work.
_IS_FULL: Final = "53300"


@asynccontextmanager
async def watching(pool: WatchedPool) -> AsyncIterator[None]:
    """Keep :attr:`~checkpoints.pool.WatchedPool.away` true to the database while the context is open."""
    async with background(_Watch(pool).run(), "database-watch"):
        yield


class _Watch:
    """Looks with a connection of its own: a pool that is used up says nothing about the database.

    Args:
        pool: What is told.
    """

    def __init__(self, pool: WatchedPool) -> None:
        self._pool = pool
        self._connection: AsyncConnection[DictRow] | None = None

    async def run(self) -> None:
        """Look until cancelled."""
        try:
            while True:
                # A connection may be cut while the database is there: the second look is with a new one.
                reason = await self._look() and await self._look()
                if reason and not self._pool.away:
                    log.warning("database_away", reason=reason)
                    self._pool.refuse(reason)
                elif not reason and self._pool.away:
                    await self._welcome()
                await asyncio.sleep(SECONDS_BETWEEN)
        finally:
            await self._disconnect()

    async def _look(self) -> str:
        """Why the database is away; empty while it is there."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                self._connection = self._connection or await connect(self._pool)
                await self._connection.execute(LOOK_SQL)
        except (psycopg.Error, OSError, TimeoutError) as error:
            await self._disconnect()
            is_full = isinstance(error, psycopg.Error) and error.sqlstate == _IS_FULL
            return "" if is_full else f"{type(error).__name__}: {error}".strip()
        return ""

    async def _welcome(self) -> None:
        """Lend connections again, none of which is from before."""
        await self._pool.drain()
        self._pool.lend_again()
        log.info("database_back")

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection:
            with suppress(psycopg.Error, OSError):
                await connection.close()
