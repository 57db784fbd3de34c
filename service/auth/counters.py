"""Where requests are counted, so that replicas agree: a fixed window a name."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import psycopg
from limits.aio.storage import MemoryStorage, Storage

from core.postgres import DATABASE_UNAVAILABLE, Pool
from core.settings import LimitSettings, RedisSettings

# What a counter that is away, or slow, raises.
COUNTER_FAULTS = (*DATABASE_UNAVAILABLE, OSError, TimeoutError)

# A window that is over begins anew with this count.
COUNT_SQL = """
INSERT INTO auth.request_counts AS kept (name, count, ends_at)
VALUES (%(name)s, %(amount)s, now() + %(seconds)s * interval '1 second')
ON CONFLICT (name) DO UPDATE SET
    count = CASE WHEN kept.ends_at > now() THEN kept.count ELSE 0 END + excluded.count,
    ends_at = CASE WHEN kept.ends_at > now() THEN kept.ends_at ELSE excluded.ends_at END
RETURNING count, extract(epoch FROM ends_at - now())::float8 AS seconds
"""


@dataclass(frozen=True, slots=True)
class Counted:
    """Where a window stands.

    Attributes:
        count: What was counted in it, this time included.
        seconds: Until it is over.
    """

    count: int
    seconds: float


class Counter(Protocol):
    """Counts in windows that begin with the first count after the last one was over."""

    async def count(self, name: str, amount: int, *, seconds: int) -> Counted:
        """Count so many more, and say where the window stands.

        Args:
            name: Whose window.
            amount: How many.
            seconds: How long a window is.
        """
        ...


class PostgresCounter:
    """Counts in the service's Postgres, one statement each time.

    Args:
        pool: The service's pool.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def count(self, name: str, amount: int, *, seconds: int) -> Counted:
        """As :meth:`Counter.count` says."""
        async with self._pool.connection() as connection:
            given = {"name": name, "amount": amount, "seconds": seconds}
            row = await (await connection.execute(COUNT_SQL, given)).fetchone()
        if row is None:
            raise psycopg.DataError("the count was not returned")
        return Counted(row["count"], row["seconds"])


class StorageCounter:
    """Counts in a storage of the ``limits`` library: Redis, or the process's memory."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def count(self, name: str, amount: int, *, seconds: int) -> Counted:
        """As :meth:`Counter.count` says."""
        counted = await self._storage.incr(name, seconds, amount)
        return Counted(counted, max(0.0, await self._storage.get_expiry(name) - time.time()))


def process_counter() -> Counter:
    """Counts in the memory of this process."""
    return StorageCounter(MemoryStorage())


@asynccontextmanager
async def open_counter(settings: LimitSettings, redis: RedisSettings, pool: Pool) -> AsyncIterator[Counter]:
    """The counter the settings ask for: Redis where one is named, else Postgres.

    Args:
        settings: Whether to count for all replicas.
        redis: Where Redis is.
        pool: The service's pool, for the table, which is made by ``migrate``.
    """
    if settings.limit_in_process:
        yield process_counter()
    elif redis.url:
        # Its client takes a fifth of a second to import, which a service without Redis need not wait for.
        from service.auth.rate_limits import open_redis_counter  # noqa: PLC0415

        url, timeout = redis.url.get_secret_value(), settings.limit_timeout_seconds
        async with open_redis_counter(url, timeout) as counter:
            yield counter
    else:
        yield PostgresCounter(pool)
