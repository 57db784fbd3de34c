"""The cache that the settings ask for."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from checkpoints.cache.memory import MemoryStore
from checkpoints.cache.postgres import PostgresStore
from checkpoints.cache.results import LIMIT_SECONDS, ResultCache, WorthKeeping
from checkpoints.cache.store import Store
from core.errors import StartupError
from core.logging import get_logger
from core.postgres import Pool
from core.settings import CacheBackend, CacheSettings, RedisSettings
from core.tasks import background

log = get_logger(__name__)


@asynccontextmanager
async def open_cache(
    settings: CacheSettings,
    redis: RedisSettings,
    pool: Pool,
    *,
    edition: str,
    worth_keeping: WorthKeeping,
) -> AsyncIterator[ResultCache | None]:
    """Open the cache, and close it with the context; ``None`` where it is off.

    A Redis that is away stops no start: it is found away by the first look.

    Args:
        settings: Which one, and for how long.
        redis: Where Redis is.
        pool: For the one in Postgres.
        edition: See :class:`ResultCache`.
        worth_keeping: See :class:`ResultCache`.

    Raises:
        StartupError: Redis is asked for and has no address, or one that cannot be read.
    """
    backend = _chosen(settings, redis)
    log.info("result_cache", backend=backend, seconds=settings.ttl_seconds)
    if backend == "off":
        yield None
        return
    async with _store(backend, redis, pool) as store:
        yield ResultCache(store, seconds=settings.ttl_seconds, edition=edition, worth_keeping=worth_keeping)


def _chosen(settings: CacheSettings, redis: RedisSettings) -> CacheBackend:
    if settings.backend != "auto":
        return settings.backend
    return "redis" if redis.url else "memory"


@asynccontextmanager
async def _store(backend: CacheBackend, redis: RedisSettings, pool: Pool) -> AsyncIterator[Store]:
    if backend == "redis":
        async with _redis(redis) as store:
            yield store
    elif backend == "postgres":
        async with _postgres(pool) as store:
            yield store
    else:
        yield MemoryStore()


@asynccontextmanager
async def _redis(settings: RedisSettings) -> AsyncIterator[Store]:
    if settings.url is None:
        raise StartupError("CACHE_BACKEND is redis, so REDIS_URL must be set")
    # Its client takes a tenth of a second to import, which a service without Redis need not wait for.
    from checkpoints.cache.redis import RedisStore, redis_client  # noqa: PLC0415

    store = RedisStore(redis_client(settings.url.get_secret_value(), timeout=LIMIT_SECONDS))
    try:
        yield store
    finally:
        await store.aclose()


@asynccontextmanager
async def _postgres(pool: Pool) -> AsyncIterator[Store]:
    store = PostgresStore(pool)
    async with background(store.sweep_forever(), "cache-sweeper"):
        yield store
