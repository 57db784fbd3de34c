"""Databases that workflows read: small pools, opened when first asked, and transactions that cannot write."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final, cast
from uuid import UUID

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row
from psycopg.types.json import Jsonb
from psycopg_pool import AsyncConnectionPool
from pydantic import JsonValue

from core.errors import StepFailed
from core.postgres import DATABASE_UNAVAILABLE, Pool
from core.texts import make_storable
from workflows.numbers import LARGEST

_POOL_SIZE: Final = 4
_CONNECT_SECONDS: Final = 10
# Rolled back with the transaction; the server ends what takes longer, also where nobody listens any more.
BEGIN_SQL = "BEGIN READ ONLY"
TIMEOUT_SQL = "SELECT set_config('statement_timeout', %s, true)"
# The one thing a read-only transaction can leave behind in a session.
UNLOCK_SQL = "SELECT pg_advisory_unlock_all()"


class Connections:
    """The :class:`workflows.ports.SqlReader` of the service.

    Args:
        urls: Addresses by name.
    """

    def __init__(self, urls: Mapping[str, str]) -> None:
        self._urls = urls
        self._pools: dict[str, Pool] = {}
        self._opening = asyncio.Lock()

    async def rows(
        self,
        connection: str,
        sql: str,
        parameters: Mapping[str, JsonValue],
        *,
        limit: int,
        timeout: float,
    ) -> list[dict[str, JsonValue]]:
        """The rows of one statement (:class:`workflows.ports.SqlReader`)."""
        try:
            async with asyncio.timeout(timeout):
                return await self._rows(connection, sql, _bound(parameters), limit, timeout)
        except (TimeoutError, psycopg.errors.QueryCanceled) as error:
            raise StepFailed(f"the statement on {connection!r} took more than {timeout:g} s") from error
        except DATABASE_UNAVAILABLE as error:
            raise StepFailed(f"the database {connection!r} cannot be reached", retryable=True) from error
        except psycopg.Error as error:
            reason = str(error).strip().partition("\n")[0]
            raise StepFailed(f"the database {connection!r} refuses the statement: {reason}") from error

    async def aclose(self) -> None:
        """Close every pool."""
        for pool in self._pools.values():
            await pool.close()

    async def _rows(
        self, name: str, sql: str, parameters: Mapping[str, Any], limit: int, timeout: float
    ) -> list[dict[str, JsonValue]]:
        pool = await self._pool(name)
        async with pool.connection() as connection:
            await connection.execute(BEGIN_SQL)
            try:
                await connection.execute(TIMEOUT_SQL, (str(int(timeout * 1_000)),))
                # A cursor takes one SELECT and nothing else, and gives no more rows than are asked for.
                async with connection.cursor(name="step") as cursor:
                    await cursor.execute(sql.encode(), parameters)
                    found = await cursor.fetchmany(limit + 1)
            finally:
                if not connection.closed:
                    await connection.rollback()
        if len(found) > limit:
            raise StepFailed(f"the statement gives more than {limit} rows (row_limit)")
        return [cast("dict[str, JsonValue]", _json(row)) for row in found]

    async def _pool(self, name: str) -> Pool:
        if name not in self._urls:
            raise StepFailed(f"WORKFLOW_CONNECTIONS has no {name!r}")
        async with self._opening:
            if name not in self._pools:
                pool = _made(self._urls[name])
                await pool.open()
                self._pools[name] = pool
        return self._pools[name]


@asynccontextmanager
async def open_connections(urls: Mapping[str, str]) -> AsyncIterator[Connections]:
    """Connections that close with the context."""
    connections = Connections(urls)
    try:
        yield connections
    finally:
        await connections.aclose()


def _made(url: str) -> Pool:
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


def _bound(parameters: Mapping[str, JsonValue]) -> dict[str, Any]:
    """Lists as arrays, objects as ``jsonb``; texts as Postgres can take them."""
    return {name: _parameter(value) for name, value in parameters.items()}


def _parameter(value: JsonValue) -> Any:
    if isinstance(value, dict):
        return Jsonb(value)
    if isinstance(value, list):
        return Jsonb(value) if any(isinstance(one, dict | list) for one in value) else value
    return make_storable(value) if isinstance(value, str) else value


def _json(value: Any) -> JsonValue:  # noqa: PLR0911 - a row a type
    """A value as JSON holds it: what JSON lacks becomes text, and so do numbers it would round."""
    match value:
        case None | bool() | str():
            return value
        case int():
            return value if abs(value) < LARGEST else str(value)
        case float():
            return value if value - value == 0 else str(value)
        case datetime() | date() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case list() | tuple():
            return [_json(one) for one in value]
        case dict():
            return {str(key): _json(one) for key, one in value.items()}
        case Decimal() | UUID() | _:
            return make_storable(str(value))
