"""The pool the memory is given, and what becomes of the driver's errors."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import DictRow
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from core.errors import MemoryUnavailable

Connection: TypeAlias = AsyncConnection[DictRow]
Pool: TypeAlias = AsyncConnectionPool[Connection]

_SQL = Path(__file__).parent / "sql"


def sql_file(name: str) -> bytes:
    """The statements of a file in ``memory/sql``; read at import, never while a request waits."""
    return (_SQL / name).read_bytes()


@contextmanager
def memory_errors() -> Iterator[None]:
    """Raise :class:`MemoryUnavailable` for a database that cannot be reached or asks to try again.

    Raises:
        MemoryUnavailable: Instead of the driver's own error. Errors of SQL itself pass: they are bugs.
    """
    try:
        yield
    except (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout, PoolClosed) as error:
        raise MemoryUnavailable(
            "The memory's database cannot be reached; try again later",
            details={"reason": type(error).__name__},
        ) from error
