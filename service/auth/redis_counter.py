"""Requests counted in Redis."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from limits.aio.storage import RedisStorage
from redis.asyncio import ConnectionPool
from redis.exceptions import RedisError

from service.auth.rate_limits import Counted, Counter, StorageCounter


class RedisCounter:
    """Counts in Redis, through the ``limits`` library.

    Args:
        storage: Where.
    """

    def __init__(self, storage: RedisStorage) -> None:
        self._counter = StorageCounter(storage)

    async def count(self, name: str, amount: int, *, seconds: int) -> Counted:
        """As :meth:`service.auth.rate_limits.Counter.count` says."""
        try:
            return await self._counter.count(name, amount, seconds=seconds)
        except RedisError as error:
            # What counters that are away raise, whatever they are made of.
            raise ConnectionError(f"Redis: {error}") from error


@asynccontextmanager
async def open_redis_counter(url: str, timeout: float) -> AsyncIterator[Counter]:
    """Count in Redis while the context is open.

    Args:
        url: Of Redis, ``redis://``, ``rediss://`` or ``unix://``.
        timeout: Seconds it is waited for.
    """
    connections = ConnectionPool.from_url(url, socket_timeout=timeout, socket_connect_timeout=timeout)
    scheme = "async+redis+" if url.startswith("unix") else "async+"
    try:
        yield RedisCounter(
            RedisStorage(
                f"{scheme}{url}",
                implementation="redispy",
                key_prefix="ventros-agents",
                connection_pool=connections,  # type: ignore[arg-type]  # as its documentation says
            )
        )
    finally:
        await connections.aclose()
