"""The cache of node results: LangGraph's own caches, kept from holding up or misleading a run.

LangGraph calls a cache from the event loop, although its Redis client is synchronous, and caches whatever a
node returned. :class:`NodeResultCache` runs the calls in threads with a time limit, and leaves out results
that must not be reused. A cache that fails or is slow counts as empty.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from hashlib import sha256
from typing import Any, Final, TypeAlias, TypeVar

from langgraph.cache.base import BaseCache, FullKey, Namespace
from langgraph.cache.memory import InMemoryCache
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.graph import StateGraph

from core.errors import StartupError
from core.logging import get_logger
from core.settings import CacheSettings, RedisSettings

# For one lookup or one write. Running the node again is better than waiting longer.
TIMEOUT_SECONDS: Final = 0.25
# Calls at a time. The caches have threads of their own, so that a slow Redis leaves the default ones free.
THREADS: Final = 8
MAX_RESULT_BYTES: Final = 16 * 1024
MAX_MEMORY_ENTRIES: Final = 10_000

Result = TypeVar("Result")
# What a task wrote, as LangGraph keeps it: pairs of channel and value.
Writes: TypeAlias = Sequence[tuple[str, Any]]
# Decides whether a result may be reused, from the node's name and its writes by channel.
IsCacheable: TypeAlias = Callable[[str, Mapping[str, Any]], bool]

log = get_logger(__name__)


class JsonSerializer(SerializerProtocol):
    """Serialise a task's writes as plain JSON.

    LangGraph's serialiser can import the types that its input names. Others may write to a shared Redis, so
    what is read from it may hold nothing but text, numbers, lists and objects.
    """

    def dumps_typed(self, obj: Writes) -> tuple[str, bytes]:
        """Serialise the writes.

        Raises:
            ValueError: The writes are too large, or JSON would not give them back unchanged (messages,
                ``Send``, tuples).
            TypeError: JSON has no such type.
        """
        plain = [[channel, value] for channel, value in obj]
        document = json.dumps(plain, allow_nan=False)
        if json.loads(document) != plain:
            raise ValueError("JSON would not give the result back unchanged")
        if len(document) > MAX_RESULT_BYTES:
            raise ValueError(f"the result has more than {MAX_RESULT_BYTES} bytes")
        return "json", document.encode()

    def loads_typed(self, data: tuple[str, bytes]) -> Writes:
        """Read writes back.

        Raises:
            ValueError: The data are not a non-empty list of writes.
        """
        pairs = json.loads(data[1])
        if not (isinstance(pairs, list) and pairs):
            raise ValueError("the cached data are not a list of writes")
        return [_parse_write(pair) for pair in pairs]


def _parse_write(pair: object) -> tuple[str, Any]:
    match pair:
        case [str(channel), value]:
            return channel, value
    raise ValueError("the cached data are not a list of writes")


class BoundedMemoryCache(InMemoryCache[Writes]):
    """An in-memory cache that empties itself when it is full.

    LangGraph's own drops an expired result only when its key is looked up again, and most keys never are.
    """

    def __init__(self, *, max_entries: int = MAX_MEMORY_ENTRIES) -> None:
        super().__init__(serde=JsonSerializer())
        self._max_entries = max_entries
        self._entries = 0

    def set(self, keys: Mapping[FullKey, tuple[Writes, int | None]]) -> None:
        """Cache results, after emptying the cache if they do not fit."""
        with self._lock:
            if self._entries + len(keys) > self._max_entries:
                self.clear()
                self._entries = 0
            self._entries += len(keys)
            super().set(keys)


class NodeResultCache(BaseCache[Writes]):
    """Wrap one of LangGraph's caches for use by asynchronous runs.

    Args:
        cache: Where results are kept.
        threads: Where the cache's calls run.
        ttl_seconds: How long a result may be reused when its policy sets no time.
        is_cacheable: Whether a result may be reused at all.
    """

    def __init__(
        self,
        cache: BaseCache[Writes],
        threads: ThreadPoolExecutor,
        *,
        ttl_seconds: int,
        is_cacheable: IsCacheable,
    ) -> None:
        super().__init__()
        self._cache = cache
        self._threads = threads
        self._ttl_seconds = ttl_seconds
        self._is_cacheable = is_cacheable

    async def aget(self, keys: Sequence[FullKey]) -> dict[FullKey, Writes]:
        """Look results up; those that are missing, expired or unreadable are left out."""
        return await self._call(partial(self.get, keys)) or {}

    async def aset(self, pairs: Mapping[FullKey, tuple[Writes, int | None]]) -> None:
        """Cache those of the results that may be reused."""
        await self._call(partial(self.set, pairs))

    async def aclear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        """Delete the results of these namespaces, or all."""
        await self._call(partial(self.clear, namespaces))

    def get(self, keys: Sequence[FullKey]) -> dict[FullKey, Writes]:
        """See :meth:`aget`."""
        return self._cache.get(keys)

    def set(self, pairs: Mapping[FullKey, tuple[Writes, int | None]]) -> None:
        """See :meth:`aset`."""
        for (namespace, key), (writes, ttl) in pairs.items():
            if not self._is_cacheable(namespace[-1] if namespace else "", dict(writes)):
                continue
            try:
                self._cache.set({(namespace, key): (writes, ttl or self._ttl_seconds)})
            except (TypeError, ValueError, RecursionError) as error:
                log.debug("result_not_cacheable", namespace=namespace, reason=str(error))

    def clear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        """See :meth:`aclear`."""
        self._cache.clear(namespaces)

    async def _call(self, call: Callable[[], Result]) -> Result | None:
        """Run a call in a thread; return None if it takes too long."""
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                return await asyncio.get_running_loop().run_in_executor(self._threads, call)
        except TimeoutError:
            log.warning("cache_too_slow", timeout_seconds=TIMEOUT_SECONDS)
            return None


def compute_cache_version(release: str, graphs: Mapping[str, StateGraph[Any, Any, Any, Any]]) -> str:
    """Return a version that changes with the service's release and the nodes and channels of its graphs.

    A cached result names the next node. If that node no longer exists, the run would end without an answer.
    """
    shapes = {name: [sorted(graph.nodes), sorted(graph.channels)] for name, graph in graphs.items()}
    return f"{release}-{sha256(json.dumps(shapes, sort_keys=True).encode()).hexdigest()[:12]}"


@asynccontextmanager
async def open_cache(
    settings: CacheSettings, redis: RedisSettings, *, version: str, is_cacheable: IsCacheable
) -> AsyncIterator[NodeResultCache | None]:
    """Open the cache that the settings ask for.

    A Redis that cannot be reached does not stop the start: the cache is empty until it answers.

    Args:
        settings: Which cache, and for how long results may be reused.
        redis: The address of Redis.
        version: From :func:`compute_cache_version`; results of another version are not found.
        is_cacheable: See :class:`NodeResultCache`.

    Yields:
        The cache; None if it is off.

    Raises:
        StartupError: Redis is asked for and has no address, or one that cannot be parsed.
    """
    backend = settings.backend
    if backend == "auto":
        backend = "redis" if redis.url else "memory"
    log.info("result_cache", backend=backend, ttl_seconds=settings.ttl_seconds)
    if backend == "off":
        yield None
        return
    with ExitStack() as stack:
        cache = _connect_redis(redis, version, stack) if backend == "redis" else BoundedMemoryCache()
        threads = ThreadPoolExecutor(THREADS, thread_name_prefix="result-cache")
        stack.callback(threads.shutdown, wait=False, cancel_futures=True)
        yield NodeResultCache(cache, threads, ttl_seconds=settings.ttl_seconds, is_cacheable=is_cacheable)


def _connect_redis(settings: RedisSettings, version: str, stack: ExitStack) -> BaseCache[Writes]:
    if settings.url is None:
        raise StartupError("CACHE_BACKEND is redis, so REDIS_URL must be set")
    # Importing the client takes a tenth of a second, which a service without Redis need not spend.
    from langgraph.cache.redis import RedisCache  # noqa: PLC0415
    from redis import Redis  # noqa: PLC0415
    from redis.backoff import NoBackoff  # noqa: PLC0415
    from redis.retry import Retry  # noqa: PLC0415

    try:
        client = Redis.from_url(
            settings.url.get_secret_value(),
            socket_timeout=TIMEOUT_SECONDS,
            socket_connect_timeout=TIMEOUT_SECONDS,
            max_connections=THREADS,
            retry=Retry(NoBackoff(), 0),
        )
    except ValueError:
        # The client's error quotes the address, which may hold the password.
        raise StartupError(
            "REDIS_URL cannot be parsed: write it as redis://user:password@host:port/0, with special "
            "characters in user and password percent-encoded"
        ) from None
    stack.callback(client.close)
    return RedisCache(client, serde=JsonSerializer(), prefix=f"ventros:cache:{version}:")
