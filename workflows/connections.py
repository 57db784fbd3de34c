"""Databases that workflows read: small pools, opened on first use, and transactions that cannot write."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, cast

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row, tuple_row
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
# What a read-only transaction does not stop: reading any file of the server, or rows that a policy hides.
# `set_config('role', ...)` is a SELECT, so that roles count which the role may become.
DANGEROUS_ROLES_SQL: Final = """
SELECT rolname FROM pg_roles
WHERE pg_has_role(session_user, oid, 'MEMBER') AND (rolsuper OR rolbypassrls OR rolname IN
    ('pg_read_server_files', 'pg_write_server_files', 'pg_execute_server_program'))
ORDER BY rolname <> session_user
LIMIT 1
"""
# The server counts and stops, so that not even one row that is too large is sent. The last column is NULL or
# the error: a text that is no boolean, with the time because a constant would be evaluated at once. The
# statement itself is evaluated once (MATERIALIZED) and row by row.
BOUNDED_SQL: Final = """
WITH step_rows AS MATERIALIZED (
{sql}
)
SELECT step_rows.*, CASE
    WHEN sum(octet_length(row_to_json(step_rows.*)::text)) OVER (ROWS UNBOUNDED PRECEDING) > {limit}
    THEN ('{mark}' || now())::boolean
END
FROM step_rows
"""
_TOO_MANY_BYTES: Final = "too many bytes for a step: "
# Advisory locks are the only thing that a read-only transaction can leave behind in a session.
UNLOCK_SQL: Final = "SELECT pg_advisory_unlock_all()"


class Connections:
    """The service's :class:`workflows.ports.SqlReader`.

    Args:
        urls: Connection URLs by name.
        max_bytes: Maximum size of all rows of a statement as JSON.
    """

    def __init__(self, urls: Mapping[str, str], *, max_bytes: int) -> None:
        self._urls = urls
        self._max_bytes = max_bytes
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
            if _TOO_MANY_BYTES in str(error):
                raise StepFailed(
                    f"the rows have more than {self._max_bytes:,} bytes (WORKFLOW_QUERY_LIMIT_BYTES); select "
                    "fewer columns or rows",
                    details={"limit": "WORKFLOW_QUERY_LIMIT_BYTES", "limit_bytes": self._max_bytes},
                ) from None
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
                await _check_role(connection, name)
                # A named cursor accepts exactly one SELECT, and sends no more rows than are fetched.
                async with connection.cursor(name="step", row_factory=tuple_row) as cursor:
                    await cursor.execute(self._bound(sql), parameters)
                    columns = [column.name for column in cursor.description or ()][:-1]
                    rows = await cursor.fetchmany(limit + 1)
            finally:
                if not connection.closed:
                    await connection.rollback()
        if len(rows) > limit:
            raise StepFailed(f"the statement gives more than {limit} rows (row_limit)")
        return [
            cast("dict[str, JsonValue]", to_json(dict(zip(columns, row[:-1], strict=True)))) for row in rows
        ]

    def _bound(self, sql: str) -> bytes:
        statement = sql.rstrip().removesuffix(";")
        return BOUNDED_SQL.format(sql=statement, limit=self._max_bytes, mark=_TOO_MANY_BYTES).encode()

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
async def open_connections(urls: Mapping[str, str], *, max_bytes: int) -> AsyncIterator[Connections]:
    """Open connections that close with the context; see :class:`Connections`."""
    connections = Connections(urls, max_bytes=max_bytes)
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


async def _check_role(connection: AsyncConnection[DictRow], name: str) -> None:
    """Refuse a role for which a read-only transaction is no limit.

    Asked with each statement: an operator may change a role while the service runs.
    """
    if row := await (await connection.execute(DANGEROUS_ROLES_SQL)).fetchone():
        raise StepFailed(
            f"the connection {name!r} has the rights of {row['rolname']!r}, which may read files of the "
            "server or rows that policies hide; use a role that may only read the tables it needs "
            "(WORKFLOW_CONNECTIONS)",
            details={"role": row["rolname"]},
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
