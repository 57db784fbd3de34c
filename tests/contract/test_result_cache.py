"""The cache of node results: what every back end must do, and that none of them disturbs a run."""

import asyncio
import threading
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import HumanMessage
from langgraph.cache.base import BaseCache
from langgraph.cache.redis import RedisCache
from langgraph.types import Send
from pydantic import SecretStr

from checkpoints.cache import (
    MAX_RESULT_BYTES,
    BoundedMemoryCache,
    IsCacheable,
    JsonSerializer,
    NodeResultCache,
    open_cache,
)
from core.errors import StartupError
from core.settings import CacheSettings, RedisSettings
from tests.support.profiles import examples
from tests.support.redis import RedisServer, redis_server

WRITES = [("dispatched", [{"agent": "general", "confidence": 0.75}]), ("branch:to:assemble", None)]
KEY = (("writes", "__dynamic__", "classify"), "00ff")
OTHER = (("writes", "__dynamic__", "classify"), "00fe")
ELSEWHERE = (("writes", "__dynamic__", "*"), "00ff")


def always(node: str, writes: Mapping[str, Any]) -> bool:
    return True


async def open_one(
    stack: AsyncExitStack, server: RedisServer | None = None, *, version: str = "1", ttl_seconds: int = 300
) -> NodeResultCache:
    redis = RedisSettings(url=SecretStr(server.url) if server else None)
    settings = CacheSettings(ttl_seconds=ttl_seconds)
    cache = await stack.enter_async_context(open_cache(settings, redis, version=version, is_cacheable=always))
    assert cache
    return cache


@pytest.fixture(autouse=True)
def long_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tolerate a slow machine."""
    monkeypatch.setattr("checkpoints.cache.TIMEOUT_SECONDS", 20)


@pytest.fixture
async def server() -> AsyncIterator[RedisServer]:
    async with redis_server() as server:
        yield server


@pytest.fixture(params=["memory", "redis"])
async def cache(request: pytest.FixtureRequest, server: RedisServer) -> AsyncIterator[NodeResultCache]:
    async with AsyncExitStack() as stack:
        yield await open_one(stack, server if request.param == "redis" else None)


async def test_a_cached_result_is_found_under_its_own_key_only(cache: NodeResultCache) -> None:
    assert await cache.aget([KEY]) == {}
    await cache.aset({KEY: (WRITES, None)})
    assert await cache.aget([KEY, OTHER, ELSEWHERE]) == {KEY: WRITES}
    await cache.aset({KEY: ([("text", "newer")], None)})
    assert await cache.aget([KEY]) == {KEY: [("text", "newer")]}


async def test_another_version_of_the_service_finds_nothing(server: RedisServer) -> None:
    async with AsyncExitStack() as stack:
        old = await open_one(stack, server, version="1")
        new = await open_one(stack, server, version="2")
        await old.aset({KEY: (WRITES, None)})
        assert await old.aget([KEY]) == {KEY: WRITES}
        assert await new.aget([KEY]) == {}


async def test_clearing_a_namespace_leaves_the_others(cache: NodeResultCache) -> None:
    await cache.aset({KEY: (WRITES, None), ELSEWHERE: (WRITES, None)})
    await cache.aclear([KEY[0]])
    assert await cache.aget([KEY, ELSEWHERE]) == {ELSEWHERE: WRITES}
    await cache.aclear()
    assert await cache.aget([KEY, ELSEWHERE]) == {}


@pytest.mark.parametrize(
    "row",
    [b"", b"\x80\x04N.", b"[]", b"{}", b'"ab"', b'[["a"]]', b"[[1, 2]]", b'["ab"]', b"[" * 9_999],
)
def test_data_that_are_no_writes_are_not_a_result(row: bytes) -> None:
    with pytest.raises((ValueError, RecursionError)):
        JsonSerializer().loads_typed(("json", row))


@pytest.mark.parametrize(
    "row",
    [
        b"",
        b"json:[]",
        b'json:{"lc": 2, "type": "constructor", "id": ["subprocess", "Popen"], "args": ["false"]}',
        b"msgpack:\x80",
        b"pickle:\x80\x04N.",
    ],
)
async def test_data_others_wrote_to_redis_are_ignored(server: RedisServer, row: bytes) -> None:
    async with AsyncExitStack() as stack:
        cache = await open_one(stack, server)
        await cache.aset({KEY: (WRITES, None)})
        [(name, (_, until))] = server.values.items()
        server.values[name] = (row, until)
        assert await cache.aget([KEY]) == {}


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=examples(25))
@given(writes=st.lists(st.tuples(st.text(), PLAIN), min_size=1, max_size=4))
def test_plain_writes_come_back_unchanged(writes: list[tuple[str, Any]]) -> None:
    serializer = JsonSerializer()
    assert serializer.loads_typed(serializer.dumps_typed(writes)) == writes


@pytest.mark.parametrize(
    "value",
    [
        HumanMessage("Hi"),
        Send("node", {}),
        ("a", "b"),
        {1: "a"},
        float("nan"),
        b"bytes",
        {"a": {1}},
        "x" * MAX_RESULT_BYTES,
    ],
)
async def test_results_that_json_would_change_or_that_are_too_large_are_not_cached(
    cache: NodeResultCache, value: object
) -> None:
    await cache.aset({KEY: ([("channel", value)], None)})
    assert await cache.aget([KEY]) == {}


def wrap(cache: BaseCache[Any], is_cacheable: IsCacheable = always) -> NodeResultCache:
    return NodeResultCache(cache, ThreadPoolExecutor(1), ttl_seconds=300, is_cacheable=is_cacheable)


async def test_results_that_must_not_be_reused_are_not_cached() -> None:
    def is_cacheable(node: str, writes: Mapping[str, Any]) -> bool:
        assert node == "classify"
        return not writes.get("failed")

    cache = wrap(BoundedMemoryCache(), is_cacheable)
    await cache.aset({KEY: ([("failed", True)], None), OTHER: (WRITES, None)})
    assert await cache.aget([KEY, OTHER]) == {OTHER: WRITES}


def test_memory_is_bounded() -> None:
    cache = BoundedMemoryCache(max_entries=3)
    names = [str(number) for number in range(10)]
    for name in names:
        cache.set({(("ns",), name): (WRITES, 300)})
    assert cache.get([(("ns",), name) for name in names]) == {(("ns",), "9"): WRITES}


async def test_results_expire(server: RedisServer) -> None:
    async with AsyncExitStack() as stack:
        redis = await open_one(stack, server, ttl_seconds=60)
        await redis.aset({KEY: (WRITES, None), OTHER: (WRITES, 10)})
        assert await redis.aget([KEY, OTHER]) == {KEY: WRITES, OTHER: WRITES}
        now = server.clock()
        server.clock = lambda: now + 11
        assert await redis.aget([KEY, OTHER]) == {KEY: WRITES}
        server.clock = lambda: now + 61
        assert await redis.aget([KEY, OTHER]) == {}


class SlowCache(BoundedMemoryCache):
    """Answers no lookup before it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.released = threading.Event()

    def get(self, keys: Any) -> Any:
        self.released.wait(60)
        return super().get(keys)


async def test_a_slow_cache_is_empty_and_does_not_block_the_event_loop(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("checkpoints.cache.TIMEOUT_SECONDS", 0.01)
    slow = SlowCache()
    cache = wrap(slow)
    await cache.aset({KEY: (WRITES, None)})
    try:
        assert await cache.aget([KEY]) == {}
    finally:
        slow.released.set()
    assert "cache_too_slow" in caplog.text


async def test_a_redis_that_hangs_or_vanishes_is_empty_until_it_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(redis_server())
        cache = await open_one(stack, server)
        await cache.aset({KEY: (WRITES, None)})
        server.open_gate.clear()
        with monkeypatch.context() as patch:
            patch.setattr("checkpoints.cache.TIMEOUT_SECONDS", 0.05)
            assert await cache.aget([KEY]) == {}
        server.open_gate.set()
        # The answer that came too late must not be taken for that to the next question.
        assert await cache.aget([OTHER]) == {}
        assert await cache.aget([KEY]) == {KEY: WRITES}
        for connection in list(server.connections):
            connection.cancel()
        await asyncio.gather(*server.connections, return_exceptions=True)
        await cache.aget([KEY])
        assert await cache.aget([KEY]) == {KEY: WRITES}


async def test_a_redis_that_cannot_be_reached_stops_neither_the_start_nor_a_run() -> None:
    redis = RedisSettings(url=SecretStr("redis://127.0.0.1:9/0"))
    async with open_cache(CacheSettings(), redis, version="1", is_cacheable=always) as cache:
        assert cache is not None
        await cache.aset({KEY: (WRITES, None)})
        assert await cache.aget([KEY]) == {}


@pytest.mark.parametrize(
    ("backend", "has_redis", "kind"),
    [
        ("auto", False, BoundedMemoryCache),
        ("auto", True, RedisCache),
        ("memory", True, BoundedMemoryCache),
        ("off", True, None),
    ],
)
async def test_the_settings_choose_the_back_end(backend: Any, has_redis: bool, kind: Any) -> None:
    url = SecretStr("redis://127.0.0.1:9/0") if has_redis else None
    opened = open_cache(
        CacheSettings(backend=backend), RedisSettings(url=url), version="1", is_cacheable=always
    )
    async with opened as cache:
        assert (type(cache._cache) if cache else None) is kind


@pytest.mark.parametrize("url", [None, "redis://127.0.0.1:port/0"])
async def test_a_redis_without_a_usable_address_stops_the_start(url: str | None) -> None:
    redis = RedisSettings(url=SecretStr(url) if url else None)
    opened = open_cache(CacheSettings(backend="redis"), redis, version="1", is_cacheable=always)
    with pytest.raises(StartupError, match="REDIS_URL"):
        async with opened:
            pass
