"""The connection pool: opened on the database that the settings name, and watched for outages.

A background task checks the database once a second, so that not every request has to find an outage out by
itself. During one, the pool refuses at once what would otherwise wait for its whole timeout, including
requests that already wait. After one, it replaces its connections before it lends any.
"""

import asyncio
import math
import select
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final
from weakref import WeakKeyDictionary

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from checkpoints.embedded import embedded_postgres_server
from core.concurrency import FairSemaphore
from core.context import current_tenant
from core.errors import StartupError
from core.logging import get_logger
from core.postgres import Connection, Pool
from core.settings import DatabaseSettings
from core.tasks import Supervisor

log = get_logger(__name__)

# The longest pause between reconnection attempts; a database that is back goes unnoticed for so long.
RECONNECT_SECONDS: Final = 4

CHECK_SQL: Final = "SELECT 1"
CHECK_INTERVAL_SECONDS: Final = 1.0
# Long compared with the pauses of a busy event loop, so that a late answer is not taken for an outage.
CHECK_TIMEOUT_SECONDS: Final = 5.0
# PostgreSQL, appendix A: too_many_connections. The database is available to those who have a connection.
_TOO_MANY_CONNECTIONS: Final = "53300"

# A peer that vanished without closing its connections is noticed within about 25 s.
_KEEPALIVE: Final = {
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}


class WatchedPool(AsyncConnectionPool[Connection]):
    """A pool that refuses callers at once during a known outage.

    Attributes:
        unavailable_reason: Why the database is unavailable; empty while it is available, or nobody watches.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.unavailable_reason = ""
        # Tenants take turns, and leave half of the connections to others while there are others: a tenant
        # with many runs keeps each of its connections long, as its runs wait for computing time meanwhile.
        self._turns = FairSemaphore(self.max_size, shared_limit=max(1, self.max_size // 2))
        self._borrowers: dict[Connection, str] = {}
        self._waiters: set[asyncio.Timeout] = set()
        self._returned_at: WeakKeyDictionary[Connection, float] = WeakKeyDictionary()

    async def getconn(self, timeout: float | None = None) -> Connection:
        """Borrow a connection.

        Raises:
            PoolTimeout: None became free in time, or the database is unavailable.
        """
        if self.unavailable_reason:
            raise PoolTimeout(self.unavailable_reason)
        tenant = current_tenant()
        try:
            async with asyncio.timeout(timeout or self.timeout) as waiter:
                self._waiters.add(waiter)
                await self._turns.acquire(tenant)
                try:
                    connection = await super().getconn(timeout)
                except BaseException:
                    self._turns.release(tenant)
                    raise
        except TimeoutError:
            raise self._build_timeout() from None
        finally:
            self._waiters.discard(waiter)
        self._borrowers[connection] = tenant
        return connection

    def _build_timeout(self) -> PoolTimeout:
        return PoolTimeout(self.unavailable_reason or "no connection became free in time")

    async def putconn(self, conn: Connection) -> None:
        """Return a borrowed connection."""
        self._returned_at[conn] = time.monotonic()
        tenant = self._borrowers.pop(conn, None)
        try:
            await super().putconn(conn)
        finally:
            if tenant is not None:
                self._turns.release(tenant)

    def get_stats(self) -> dict[str, int]:
        """Return the pool's counters; who waits for a turn waits for a connection."""
        stats = super().get_stats()
        return {**stats, "requests_waiting": stats.get("requests_waiting", 0) + self._turns.waiting}

    async def check_unless_fresh(self, connection: Connection) -> None:
        """Check a connection before it is lent, with a round trip only where it can tell something.

        A connection that was in use within the last second and whose socket is silent works: a server that
        closes a connection sends something, and the round trip to one that vanished would not return.

        Raises:
            psycopg.Error: The connection is broken.
        """
        idle_seconds = time.monotonic() - self._returned_at.get(connection, -math.inf)
        if idle_seconds > CHECK_INTERVAL_SECONDS or _has_input(connection):
            await self.check_connection(connection)

    def start_refusing(self, reason: str) -> None:
        """Lend no connections from now on, and refuse those who wait for one."""
        self.unavailable_reason = reason
        for waiter in self._waiters:
            waiter.reschedule(0)

    async def stop_refusing(self) -> None:
        """Replace all connections, then lend again."""
        await self.drain()
        self.unavailable_reason = ""


def _has_input(connection: Connection) -> bool:
    """Return whether the server has sent something since the last statement, or has closed the connection."""
    if connection.closed:
        return True
    poll = select.poll()
    poll.register(connection.pgconn.socket, select.POLLIN)
    return bool(poll.poll(0))


@asynccontextmanager
async def open_database(
    settings: DatabaseSettings, data_dir: Path, *, embedded_url: str | None = None
) -> AsyncIterator[WatchedPool]:
    """Open a pool, after starting the embedded server if the settings name no other.

    Args:
        settings: Address, sizes and time limits.
        data_dir: Where the embedded server keeps its files.
        embedded_url: The embedded server, if another process runs it for this one.

    Raises:
        StartupError: The database cannot be started or reached.
    """
    async with AsyncExitStack() as stack:
        url = settings.url.get_secret_value() if settings.url else embedded_url
        if url is None:
            url = await stack.enter_async_context(embedded_postgres_server(data_dir))
        yield await stack.enter_async_context(open_pool(url, settings))


@asynccontextmanager
async def open_pool(url: str, settings: DatabaseSettings) -> AsyncIterator[WatchedPool]:
    """Open a pool and close it with the context.

    Connections are checked before they are lent (see :meth:`WatchedPool.check_unless_fresh`), replaced when
    broken, and reconnected with growing pauses after an outage.

    Args:
        url: ``postgresql://`` address of the database.
        settings: Sizes and time limits.

    Yields:
        The open pool. Its connections autocommit and return rows as dicts, as the saver requires.

    Raises:
        StartupError: The database cannot be reached.
    """
    await _require_reachable(url, settings)
    timeout = settings.connect_timeout_seconds

    async def check(connection: Connection) -> None:
        await pool.check_unless_fresh(connection)

    pool = WatchedPool(
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
        reconnect_timeout=RECONNECT_SECONDS,
        check=check,
        open=False,
    )
    async with pool:
        yield pool


async def connect(pool: Pool) -> Connection:
    """Open a connection outside the pool, with the pool's parameters.

    Raises:
        psycopg.OperationalError: The database cannot be reached.
    """
    if not isinstance(pool.conninfo, str) or not isinstance(pool.kwargs, dict):
        raise TypeError("the pool computes its address; open the pool with open_pool")
    return await pool.connection_class.connect(pool.conninfo, **pool.kwargs)


@asynccontextmanager
async def watch_database(pool: WatchedPool, tasks: Supervisor) -> AsyncIterator[None]:
    """Keep :attr:`WatchedPool.unavailable_reason` up to date while the context is open."""
    async with tasks.supervise("database-watch", _Watch(pool).run):
        yield


class _Watch:
    """Checks the database over a connection of its own: an exhausted pool says nothing about the database."""

    def __init__(self, pool: WatchedPool) -> None:
        self._pool = pool
        self._connection: Connection | None = None

    async def run(self) -> None:
        """Check until cancelled."""
        try:
            while True:
                # A single connection may break while the database is available: check again with a new one.
                reason = await self._check() and await self._check()
                if reason and not self._pool.unavailable_reason:
                    log.warning("database_unavailable", reason=reason)
                    self._pool.start_refusing(reason)
                elif not reason and self._pool.unavailable_reason:
                    await self._pool.stop_refusing()
                    log.info("database_available")
                await asyncio.sleep(CHECK_INTERVAL_SECONDS)
        finally:
            await self._disconnect()

    async def _check(self) -> str:
        """Return why the database is unavailable, or an empty text."""
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_SECONDS):
                self._connection = self._connection or await connect(self._pool)
                await self._connection.execute(CHECK_SQL)
        except (psycopg.Error, OSError, TimeoutError) as error:
            await self._disconnect()
            is_full = isinstance(error, psycopg.Error) and error.sqlstate == _TOO_MANY_CONNECTIONS
            return "" if is_full else f"{type(error).__name__}: {error}".strip()
        return ""

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection:
            with suppress(psycopg.Error, OSError):
                await connection.close()


async def _require_reachable(url: str, settings: DatabaseSettings) -> None:
    """Fail at once and with a clear message; the pool itself would only retry in the background."""
    try:
        connection = await AsyncConnection.connect(
            url, connect_timeout=max(2, int(settings.connect_timeout_seconds))
        )
    except psycopg.ProgrammingError:
        # The driver's error quotes what it could not parse, which may hold the password.
        raise StartupError(
            "DATABASE_URL cannot be parsed: write it as postgresql://user:password@host:port/database, with "
            "special characters in user and password percent-encoded"
        ) from None
    except psycopg.OperationalError as error:
        parts = psycopg.conninfo.conninfo_to_dict(url)
        address = f"{parts.get('host', 'localhost')}:{parts.get('port', 5432)}/{parts.get('dbname', '')}"
        reason = str(error).strip().splitlines()[0]
        raise StartupError(f"cannot reach the database at {address} (DATABASE_URL): {reason}") from error
    await connection.close()
