"""What every place for results must do, and that none of them is ever in a run's way."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Literal

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import HumanMessage
from langgraph.types import Send
from pydantic import SecretStr

from checkpoints.cache.memory import MemoryStore
from checkpoints.cache.opening import open_cache
from checkpoints.cache.plain import NotPlainError, packed, unpacked
from checkpoints.cache.postgres import PostgresStore
from checkpoints.cache.redis import RedisStore, redis_client
from checkpoints.cache.results import MOST_BYTES, ResultCache
from checkpoints.cache.store import Store
from checkpoints.pool import open_pool
from core.errors import StartupError
from core.postgres import Pool
from core.settings import CacheSettings, DatabaseSettings, RedisSettings
from tests.support.redis import redis_server

WRITES = [("dispatched", [{"agent": "general", "confidence": 0.75}]), ("branch:to:assemble", None)]
KEY = (("writes", "__dynamic__", "classify"), "00ff")
OTHER = (("writes", "__dynamic__", "classify"), "00fe")
ELSEWHERE = (("writes", "__dynamic__", "*"), "00ff")


def cache_over(store: Store, *, seconds: int = 300, edition: str = "1", **options: Any) -> ResultCache:
    options.setdefault("worth_keeping", lambda node, written: True)
    return ResultCache(store, seconds=seconds, edition=edition, **options)


@pytest.fixture(scope="module")
async def shared_pool(shared_database_url: str) -> AsyncIterator[Pool]:
    async with open_pool(shared_database_url, DatabaseSettings(pool_min_size=0, pool_max_size=4)) as pool:
        yield pool


@pytest.fixture(params=["memory", "postgres", "redis"])
async def store(request: pytest.FixtureRequest, shared_pool: Pool) -> AsyncIterator[Store]:
    async with AsyncExitStack() as stack:
        if request.param == "memory":
            yield MemoryStore()
        elif request.param == "postgres":
            yield PostgresStore(shared_pool)
            async with shared_pool.connection() as connection:
                await connection.execute("TRUNCATE result_cache")
        else:
            server = await stack.enter_async_context(redis_server())
            redis = RedisStore(redis_client(server.url, timeout=1))
            stack.push_async_callback(redis.aclose)
            yield redis


async def test_what_was_kept_is_given_again_and_nothing_else(store: Store) -> None:
    cache = cache_over(store)
    assert await cache.aget([KEY]) == {}
    await cache.aset({KEY: (WRITES, None)})
    assert await cache.aget([KEY, OTHER, ELSEWHERE]) == {KEY: WRITES}
    await cache.aset({KEY: ([("text", "newer")], None)})
    assert await cache.aget([KEY]) == {KEY: [("text", "newer")]}


async def test_another_edition_of_the_service_finds_nothing(store: Store) -> None:
    await cache_over(store, edition="1").aset({KEY: (WRITES, None)})
    assert await cache_over(store, edition="2").aget([KEY]) == {}


async def test_clearing_a_namespace_leaves_the_others(store: Store) -> None:
    cache = cache_over(store)
    await cache.aset({KEY: (WRITES, None), ELSEWHERE: (WRITES, None)})
    await cache.aclear([ELSEWHERE[0]])
    assert await cache.aget([KEY, ELSEWHERE]) == {KEY: WRITES}
    await cache.aclear()
    assert await cache.aget([KEY, ELSEWHERE]) == {}


async def test_a_row_of_another_key_is_not_given(store: Store) -> None:
    """Whoever mixes answers up (a shared connection, a wrong row): the value says whose it is."""
    cache = cache_over(store)
    await cache.aset({OTHER: (WRITES, None)})
    [row] = (await store.read([cache._name(*OTHER)])).values()
    await store.write({cache._name(*KEY): row}, 300)
    assert await cache.aget([KEY, OTHER]) == {OTHER: WRITES}


@pytest.mark.parametrize(
    "row", [b"", b"\x80\x04N.", b"[]", b'["k", {}]', b'["k", [["a"]]]', b'["k", [[1, 2]]]', b"[" * 9_999]
)
def test_a_row_that_is_no_writes_is_no_result(row: bytes) -> None:
    with pytest.raises(NotPlainError):
        unpacked("k", row)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=25)
@given(key=st.text(), writes=st.lists(st.tuples(st.text(), PLAIN), max_size=4))
def test_plain_writes_come_back_as_they_were(key: str, writes: list[tuple[str, Any]]) -> None:
    assert unpacked(key, packed(key, writes)) == writes


@pytest.mark.parametrize(
    "value", [HumanMessage("Hi"), Send("node", {}), ("a", "b"), {1: "a"}, float("nan"), b"bytes", {"a": {1}}]
)
async def test_what_json_would_change_is_not_kept(value: object) -> None:
    cache = cache_over(MemoryStore())
    await cache.aset({KEY: ([("channel", value)], None)})
    assert await cache.aget([KEY]) == {}


async def test_what_is_not_worth_it_or_too_large_is_not_kept() -> None:
    def answered(node: str, written: Mapping[str, Any]) -> bool:
        assert node == "classify"
        return not written.get("failed")

    cache = cache_over(MemoryStore(), worth_keeping=answered)
    await cache.aset({KEY: ([("failed", True)], None), OTHER: ([("text", "x" * MOST_BYTES)], None)})
    assert await cache.aget([KEY, OTHER]) == {}


async def test_memory_forgets_after_its_time_and_the_oldest_when_it_is_full() -> None:
    now = 0.0
    store = MemoryStore(most_bytes=2_000, clock=lambda: now)
    await store.write({"a": b"1"}, 10)
    now = 9.9
    assert await store.read(["a"]) == {"a": b"1"}
    now = 10.0
    assert await store.read(["a"]) == {}
    await store.write({str(number): bytes(100) for number in range(100)}, 10)
    assert set(await store.read([str(number) for number in range(100)])) == {"96", "97", "98", "99"}
    assert store._bytes <= 2_000


async def test_postgres_forgets_after_its_time_and_the_sweeper_takes_the_rows(
    shared_pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("checkpoints.cache.postgres.SWEPT_AT_ONCE", 1)
    store = PostgresStore(shared_pool)
    await store.write({"old": b"1", "older": b"0", "new": b"2"}, 300)
    async with shared_pool.connection() as connection:
        await connection.execute("UPDATE result_cache SET expires_at = now() WHERE key <> 'new'")
        logged = await connection.execute(
            "SELECT relpersistence FROM pg_class WHERE relname = 'result_cache'"
        )
        assert await logged.fetchone() == {"relpersistence": "u"}
    assert await store.read(["old", "new"]) == {"new": b"2"}
    assert await store.sweep() == 2
    assert await store.sweep() == 0


async def test_redis_forgets_after_its_time() -> None:
    async with redis_server() as server:
        store = RedisStore(redis_client(server.url, timeout=1))
        await store.write({"a": b"1"}, 300)
        assert await store.read(["a"]) == {"a": b"1"}
        [(_, until)] = server.values.values()
        server.clock = lambda: until
        assert await store.read(["a"]) == {}
        await store.aclose()


async def test_an_answer_of_redis_that_came_too_late_is_nobodys() -> None:
    """The next question must not be answered by what was sent for the one given up."""
    async with redis_server() as server:
        store = RedisStore(redis_client(server.url, timeout=5))
        await store.write({"mine": b"mine"}, 300)
        server.open_gate.clear()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await store.read(["mine"])
        server.open_gate.set()
        assert await store.read(["yours"]) == {}
        assert await store.read(["mine"]) == {"mine": b"mine"}
        await store.aclose()


class Away(MemoryStore):
    """Fails as it is told to, and counts how often it was asked."""

    faults: tuple[type[Exception], ...] = (psycopg.Error,)

    def __init__(self, error: Exception | Literal["silence"] | None) -> None:
        super().__init__()
        self.error = error
        self.asked = 0

    async def read(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        self.asked += 1
        if self.error == "silence":
            await asyncio.Event().wait()
        elif self.error:
            raise self.error
        return await super().read(keys)


@pytest.mark.parametrize(
    "error", [psycopg.OperationalError("gone"), ConnectionRefusedError("no one listens"), "silence"]
)
async def test_a_cache_that_is_away_is_empty_rests_and_is_said_once(
    error: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("checkpoints.cache.results.LIMIT_SECONDS", 0.01)
    now = 0.0
    store = Away(error)
    cache = cache_over(store, clock=lambda: now)
    for _ in range(3):
        assert await cache.aget([KEY]) == {}
        await cache.aset({KEY: (WRITES, None)})
    assert store.asked == 1, "while it rests nobody asks it"
    now = 30.0
    assert await cache.aget([KEY]) == {}
    now, store.error = 60.0, None
    await cache.aset({KEY: (WRITES, None)})
    assert await cache.aget([KEY]) == {KEY: WRITES}
    said = caplog.text
    assert (said.count("cache_away"), said.count("cache_back")) == (1, 1)


async def test_a_redis_nobody_listens_at_stops_neither_the_start_nor_a_run(shared_pool: Pool) -> None:
    redis = RedisSettings(url=SecretStr("redis://127.0.0.1:9/0"))
    opened = open_cache(CacheSettings(), redis, shared_pool, edition="1", worth_keeping=lambda *_: True)
    async with opened as cache:
        assert cache is not None
        await cache.aset({KEY: (WRITES, None)})
        assert await cache.aget([KEY]) == {}


@pytest.mark.parametrize(
    ("backend", "redis", "kind"),
    [
        ("auto", False, MemoryStore),
        ("auto", True, RedisStore),
        ("memory", True, MemoryStore),
        ("postgres", False, PostgresStore),
        ("off", True, None),
    ],
)
async def test_the_settings_choose(shared_pool: Pool, backend: Any, redis: bool, kind: Any) -> None:
    url = SecretStr("redis://127.0.0.1:9/0") if redis else None
    settings = CacheSettings(backend=backend)
    opened = open_cache(
        settings, RedisSettings(url=url), shared_pool, edition="1", worth_keeping=lambda *_: True
    )
    async with opened as cache:
        assert (type(cache._store) if cache else None) is kind


@pytest.mark.parametrize("url", [None, "redis://127.0.0.1:port/0"])
async def test_a_redis_without_an_address_is_said_at_the_start(shared_pool: Pool, url: str | None) -> None:
    redis = RedisSettings(url=SecretStr(url) if url else None)
    opened = open_cache(
        CacheSettings(backend="redis"), redis, shared_pool, edition="1", worth_keeping=lambda *_: True
    )
    with pytest.raises(StartupError, match="REDIS_URL"):
        async with opened:
            pass
