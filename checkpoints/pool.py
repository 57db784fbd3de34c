"""The one connection pool."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from core.errors import StartupError
from core.postgres import Connection, Pool
from core.settings import DatabaseSettings

RECONNECT_SECONDS = 4

# A peer that vanished without a word is noticed within about 25 s.
_KEEPALIVE = {
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}


class WatchedPool(AsyncConnectionPool[Connection]):
    """A pool that does not have everyone wait while the database is known to be away.

    Attributes:
        away: Why it is; empty while it is there, or nobody looks (:mod:`checkpoints.availability`).
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.away = ""
        self._waits: set[asyncio.Timeout] = set()

    async def getconn(self, timeout: float | None = None) -> Connection:
        """A connection.

        Raises:
            PoolTimeout: None came free in time, or the database is away.
        """
        if self.away:
            raise PoolTimeout(self.away)
        try:
            async with asyncio.timeout(None) as wait:
                self._waits.add(wait)
                return await super().getconn(timeout)
        except TimeoutError:
            raise PoolTimeout(self.away) from None
        finally:
            self._waits.discard(wait)

    def refuse(self, reason: str) -> None:
        """Lend nothing from now on, and tell those who wait."""
        self.away = reason
        for wait in self._waits:
            wait.reschedule(0)

    def lend_again(self) -> None:
        """The database is back."""
        self.away = ""


@asynccontextmanager
async def open_pool(url: str, settings: DatabaseSettings) -> AsyncIterator[WatchedPool]:
    """Open the pool and close it with the context.

    Connections are checked before they are lent, replaced when broken, and reconnected with growing
    pauses when the database was away.

    Args:
        url: ``postgresql://`` address of the database.
        settings: Sizes and time limits.

    Yields:
        The open pool. Connections autocommit and return rows as dicts, which is what the saver needs.

    Raises:
        StartupError: The database cannot be reached.
    """
    await _require_reachable(url, settings)
    timeout = settings.connect_timeout_seconds
    async with WatchedPool(
        url,
        connection_class=AsyncConnection[DictRow],
        kwargs={
            "autocommit": True,
            "prepare_threshold": 0 if settings.prepared_statements else None,
            "row_factory": dict_row,
            "connect_timeout": max(2, int(timeout)),
            "application_name": "ventros-agents",
            **_KEEPALIVE,
        },
        min_size=min(settings.pool_min_size, settings.pool_max_size),
        max_size=settings.pool_max_size,
        timeout=timeout,
        # Pauses between attempts double up to this: for so long a database that is back stays unnoticed.
        reconnect_timeout=RECONNECT_SECONDS,
        check=WatchedPool.check_connection,
        open=False,
    ) as pool:
        yield pool


async def connect(pool: Pool) -> AsyncConnection[DictRow]:
    """A connection of one's own beside the pool, made as the pool makes its own.

    Raises:
        psycopg.OperationalError: The database cannot be reached.
    """
    if not isinstance(pool.conninfo, str) or not isinstance(pool.kwargs, dict):
        raise TypeError("the pool computes its address: open it with open_pool")
    return await pool.connection_class.connect(pool.conninfo, **pool.kwargs)


async def _require_reachable(url: str, settings: DatabaseSettings) -> None:
    """Fail at once, and in words: the pool itself would only retry in the background."""
    try:
        connection = await AsyncConnection.connect(
            url, connect_timeout=max(2, int(settings.connect_timeout_seconds))
        )
    except psycopg.ProgrammingError:
        # The driver quotes what it could not read, which may be the password.
        raise StartupError(
            "DATABASE_URL cannot be read: write it as postgresql://user:password@host:port/database, with "
            "special characters in user and password percent-encoded"
        ) from None
    except psycopg.OperationalError as error:
        where = psycopg.conninfo.conninfo_to_dict(url)
        place = f"{where.get('host', 'localhost')}:{where.get('port', 5432)}/{where.get('dbname', '')}"
        reason = str(error).strip().splitlines()[0]
        raise StartupError(f"cannot reach the database at {place} (DATABASE_URL): {reason}") from error
    await connection.close()
