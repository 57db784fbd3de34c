"""Databases that workflows read: small pools, opened on first use, and transactions that cannot write."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, cast

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row
from psycopg.types.json import Jsonb
from psycopg_pool import AsyncConnectionPool
from pydantic import JsonValue

from core.errors import StepFailed
from core.postgres import DATABASE_UNAVAILABLE, Pool
from core.texts import make_storable
from workflows.json_values import to_json

_POOL_SIZE: Final = 4
_CONNECT_SECONDS: Final = 10
BEGIN_SQL: Final = "BEGIN READ ONLY"
# The server enforces the timeout too, so that a statement ends even if this process is gone.
TIMEOUT_SQL: Final = "SELECT set_config('statement_timeout', %s, true)"
# Advisory locks are the only thing that a read-only transaction can leave behind in a session.
UNLOCK_SQL: Final = "SELECT pg_advisory_unlock_all()"


class Connections:
    """The service's :class:`workflows.ports.SqlReader`.

    Args:
        urls: Connection URLs by name.
    """

    def __init__(self, urls: Mapping[str, str]) -> None:
        self._urls = urls
        self._pools: dict[str, Pool] = {}
        self._opening = asyncio.Lock()

    async def fetch_rows(
        self,
        connection: str,
        sql: str,
        parameters: Mapping[str, JsonValue],
        *,
        limit: int,
        timeout: float,
    ) -> list[dict[str, JsonValue]]:
        """Return the rows of one statement (:class:`workflows.ports.SqlReader`)."""
        values = {name: _to_parameter(value) for name, value in parameters.items()}
        try:
            async with asyncio.timeout(timeout):
                return await self._fetch(connection, sql, values, limit, timeout)
        except (TimeoutError, psycopg.errors.QueryCanceled) as error:
            raise StepFailed(f"the statement on {connection!r} took more than {timeout:g} s") from error
        except DATABASE_UNAVAILABLE as error:
            raise StepFailed(f"the database {connection!r} cannot be reached", retryable=True) from error
        except psycopg.Error as error:
            reason = str(error).strip().partition("\n")[0]
            raise StepFailed(f"the database {connection!r} rejects the statement: {reason}") from error

    async def aclose(self) -> None:
        """Close every pool."""
        for pool in self._pools.values():
            await pool.close()

    async def _fetch(
        self, name: str, sql: str, parameters: Mapping[str, Any], limit: int, timeout: float
    ) -> list[dict[str, JsonValue]]:
        pool = await self._open_pool(name)
        async with pool.connection() as connection:
            await connection.execute(BEGIN_SQL)
            try:
                await connection.execute(TIMEOUT_SQL, (str(int(timeout * 1_000)),))
                # A named cursor accepts exactly one SELECT, and sends no more rows than are fetched.
                async with connection.cursor(name="step") as cursor:
                    await cursor.execute(sql.encode(), parameters)
                    rows = await cursor.fetchmany(limit + 1)
            finally:
                if not connection.closed:
                    await connection.rollback()
        if len(rows) > limit:
            raise StepFailed(f"the statement gives more than {limit} rows (row_limit)")
        return [cast("dict[str, JsonValue]", to_json(row)) for row in rows]

    async def _open_pool(self, name: str) -> Pool:
        if name not in self._urls:
            raise StepFailed(f"WORKFLOW_CONNECTIONS has no {name!r}")
        async with self._opening:
            if name not in self._pools:
                pool = _create_pool(self._urls[name])
                await pool.open()
                self._pools[name] = pool
        return self._pools[name]


@asynccontextmanager
async def open_connections(urls: Mapping[str, str]) -> AsyncIterator[Connections]:
    """Open connections that close with the context."""
    connections = Connections(urls)
    try:
        yield connections
    finally:
        await connections.aclose()


def _create_pool(url: str) -> Pool:
    return AsyncConnectionPool(
        url,
        connection_class=AsyncConnection[DictRow],
        kwargs={
            "autocommit": True,
            "row_factory": dict_row,
            "connect_timeout": _CONNECT_SECONDS,
            "application_name": "ventros-workflows",
        },
        min_size=0,
        max_size=_POOL_SIZE,
        timeout=_CONNECT_SECONDS,
        reset=_unlock,
        open=False,
    )


async def _unlock(connection: AsyncConnection[DictRow]) -> None:
    await connection.execute(UNLOCK_SQL)


def _to_parameter(value: JsonValue) -> Any:
    """Convert a value for psycopg: flat lists to arrays, objects and nested lists to ``jsonb``."""
    if isinstance(value, dict):
        return Jsonb(value)
    if isinstance(value, list):
        return Jsonb(value) if any(isinstance(item, dict | list) for item in value) else value
    return make_storable(value) if isinstance(value, str) else value
