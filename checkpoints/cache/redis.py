"""Results in Redis, which forgets them by itself."""

from collections.abc import Mapping, Sequence

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from core.errors import StartupError

PREFIX = "ventros:cache:"
_SCAN_COUNT = 500
_MOST_CONNECTIONS = 32


class RedisStore:
    """LangGraph's own ``RedisCache`` waits for Redis on the event loop; this one does not.

    Args:
        client: Open, returning bytes.
    """

    faults: tuple[type[Exception], ...] = (RedisError,)

    def __init__(self, client: Redis) -> None:
        self._client = client

    async def read(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        """See :class:`~checkpoints.cache.store.Store`."""
        values = await self._client.mget([PREFIX + key for key in keys])
        return {key: value for key, value in zip(keys, values, strict=True) if isinstance(value, bytes)}

    async def write(self, values: Mapping[str, bytes], seconds: int) -> None:
        """See :class:`~checkpoints.cache.store.Store`."""
        async with self._client.pipeline(transaction=False) as pipeline:
            for key, value in values.items():
                pipeline.set(PREFIX + key, value, ex=seconds)
            await pipeline.execute()

    async def clear(self, prefix: str) -> None:
        """See :class:`~checkpoints.cache.store.Store`."""
        pattern = _literally(PREFIX + prefix) + "*"
        async for key in self._client.scan_iter(match=pattern, count=_SCAN_COUNT):
            await self._client.unlink(key)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def redis_client(url: str, *, timeout: float) -> Redis:
    """A client that tries each command once: a cache is not worth waiting for.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://`` address.
        timeout: Seconds to connect, and to wait for an answer.

    Raises:
        StartupError: The address cannot be read.
    """
    try:
        return Redis.from_url(
            url,
            decode_responses=False,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            max_connections=_MOST_CONNECTIONS,
            retry=Retry(NoBackoff(), 0),
        )
    except ValueError:
        # The client quotes what it could not read, which may be the password.
        raise StartupError(
            "REDIS_URL cannot be read: write it as redis://user:password@host:port/0, with special "
            "characters in user and password percent-encoded"
        ) from None


def _literally(text: str) -> str:
    """A glob that matches the text alone."""
    return "".join(f"\\{each}" if each in "*?[]\\" else each for each in text)
