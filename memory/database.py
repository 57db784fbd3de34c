"""The memory's SQL files, and what becomes of the driver's errors."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from psycopg.errors import DeadlockDetected, SerializationFailure

from core.errors import MemoryUnavailable
from core.postgres import DATABASE_UNAVAILABLE

Result = TypeVar("Result")

ATTEMPTS = 4
LONGEST_PAUSE_SECONDS = 0.1
_SQL = Path(__file__).parent / "sql"


def sql_file(name: str) -> bytes:
    """The statements of a file in ``memory/sql``; read at import, never while a request waits."""
    return (_SQL / name).read_bytes()


async def unobstructed(attempt: Callable[[], Awaitable[Result]]) -> Result:
    """Try a transaction again that had to give way to another one; Postgres has undone all of it.

    Raises:
        psycopg.OperationalError: It had to give way each time.
    """
    for _ in range(ATTEMPTS - 1):
        try:
            return await attempt()
        except (DeadlockDetected, SerializationFailure):
            await asyncio.sleep(random.uniform(0, LONGEST_PAUSE_SECONDS))  # noqa: S311 - jitter
    return await attempt()


@contextmanager
def memory_errors() -> Iterator[None]:
    """Raise :class:`MemoryUnavailable` for a database that cannot be reached or asks to try again.

    Raises:
        MemoryUnavailable: Instead of the driver's own error. Errors of SQL itself pass: they are bugs.
    """
    try:
        yield
    except DATABASE_UNAVAILABLE as error:
        raise MemoryUnavailable(
            "The memory's database cannot be reached; try again later",
            details={"reason": type(error).__name__},
        ) from error
