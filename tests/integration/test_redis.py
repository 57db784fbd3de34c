"""Redis for real: replicas share counts and cached results, and go on by themselves while it is away."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from checkpoints.cache import open_cache
from core.postgres import Pool
from core.settings import CacheSettings, LimitSettings, RedisSettings
from service.auth.rate_limits import STORAGE_PAUSE_SECONDS, RateLimiter, open_storage
from tests.support.general_agent import replying, say, service
from tests.support.identity import WITH_KEYS, key_of
from tests.support.servers import RedisProcess, redis_process
from tests.support.service import CONTACT

pytestmark = pytest.mark.redis

WRITES = [("dispatched", [{"agent": "general", "confidence": 0.75}]), ("branch:to:assemble", None)]
KEY = (("writes", "__dynamic__", "classify"), "00ff")


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[RedisProcess]:
    async with redis_process(tmp_path) as server:
        yield server


def settings(redis: RedisProcess) -> RedisSettings:
    return RedisSettings(url=SecretStr(redis.url))


def always(node: str, writes: Mapping[str, Any]) -> bool:
    return True


async def take(limiter: RateLimiter, requests: int, tenant: str = "acme") -> int:
    """Return how many of the requests were allowed."""
    statuses = [await limiter.count_request(tenant) for _ in range(requests)]
    return sum(status is not None and status.allowed for status in statuses)


async def test_replicas_share_a_rate_and_each_allows_it_all_while_redis_is_away(
    redis: RedisProcess, pool: Pool
) -> None:
    limits = LimitSettings(limit_timeout_seconds=20)
    # One that replicas have in common.
    now = 0.0
    async with (
        open_storage(limits, settings(redis), pool) as one,
        open_storage(limits, settings(redis), pool) as another,
    ):
        first, second = [
            RateLimiter(storage, "10/day", timeout=20, clock=lambda: now) for storage in (one, another)
        ]
        assert [await take(first, 6), await take(second, 6)] == [6, 4]
        await redis.stop()
        # Who knows that a rate is used up goes on refusing.
        assert await take(second, 1) == 0
        assert [await take(first, 12, "other"), await take(second, 12, "other")] == [10, 10]
        await redis.start()
        now += STORAGE_PAUSE_SECONDS + 1
        assert [await take(first, 6, "third"), await take(second, 6, "third")] == [6, 4]


async def test_a_cache_without_its_redis_is_empty_and_fills_again(
    redis: RedisProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A busy machine may be slow.
    monkeypatch.setattr("checkpoints.cache.TIMEOUT_SECONDS", 20)
    async with (
        open_cache(CacheSettings(), settings(redis), version="1", is_cacheable=always) as cache,
        open_cache(CacheSettings(), settings(redis), version="1", is_cacheable=always) as of_another_replica,
    ):
        assert cache
        assert of_another_replica
        await cache.aset({KEY: (WRITES, None)})
        assert await of_another_replica.aget([KEY]) == {KEY: WRITES}
        await redis.stop()
        assert await cache.aget([KEY]) == {}
        await cache.aset({KEY: (WRITES, None)})
        await redis.start()
        assert await cache.aget([KEY]) == {}
        await cache.aset({KEY: (WRITES, None)})
        assert await of_another_replica.aget([KEY]) == {KEY: WRITES}


async def test_messages_are_answered_while_redis_is_away(redis: RedisProcess, database_url: str) -> None:
    async with service(
        database_url, replying("One.", "Two.", "Three."), auth=WITH_KEYS, redis=settings(redis)
    ) as running:
        headers = await key_of(running.service, "acme")
        running.http.headers.update(headers)
        assert (await say(running, "First?", CONTACT))["response"] == "One."
        await redis.stop()
        assert (await say(running, "Second?", CONTACT))["response"] == "Two."
        await redis.start()
        assert (await say(running, "Third?", CONTACT))["response"] == "Three."
