"""The one connection pool."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool

from core.errors import StartupError
from core.postgres import Pool
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


@asynccontextmanager
async def open_pool(url: str, settings: DatabaseSettings) -> AsyncIterator[Pool]:
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
    async with AsyncConnectionPool(
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
        check=AsyncConnectionPool.check_connection,
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
