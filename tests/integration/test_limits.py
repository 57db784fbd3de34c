"""Limits: what a tenant that asks too much, or too big, is told; and that others do not notice."""

import asyncio
import time
from collections.abc import AsyncIterator

import httpx
import pytest
from pydantic import SecretStr

from core.postgres import Pool
from core.settings import LimitSettings, RedisSettings
from service.auth.rate_limits import PostgresStorage, RateLimiter, open_storage
from tests.support.general_agent import PARROT, replying, service
from tests.support.identity import WITH_KEYS, key_of
from tests.support.service import CONTACT, RunningService

LIMITS = LimitSettings(
    limit_requests_per_tenant={"small": "3/minute", "batches": "6/minute"},
    limit_body_bytes=20_000,
    limit_body_seconds=1,
    limit_batch_inputs=8,
)


@pytest.fixture(scope="module")
async def running(shared_database_url: str) -> AsyncIterator[RunningService]:
    async with service(
        shared_database_url, replying("A green one."), auth=WITH_KEYS, limits=LIMITS
    ) as opened:
        yield opened


async def test_responses_carry_the_rate_limit_and_a_rejected_one_says_when_to_retry(
    running: RunningService,
) -> None:
    small, other = [await key_of(running.service, name) for name in ("small", "other")]
    answers = [await running.http.get("/info", headers=small) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert [answer.headers["RateLimit-Policy"] for answer in answers] == ['"tenant";q=3;w=60'] * 5
    left = [answer.headers["RateLimit"].split(";")[1] for answer in answers]
    assert left == ["r=2", "r=1", "r=0", "r=0", "r=0"]
    refused = answers[-1]
    assert refused.json()["error"] == "rate_limited"
    assert set(refused.json()) == {"error", "message", "details"}
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    # Another tenant has a rate of its own; a wrong key uses up nobody's; probes have none.
    assert (await running.http.get("/info", headers=other)).headers["RateLimit"].startswith('"tenant";r=5999')
    assert (await running.http.get("/info", headers={"Authorization": "Bearer x"})).status_code == 401
    health = await running.http.get("/health", headers=small)
    assert (health.status_code, "RateLimit" in health.headers) == (200, False)


async def test_each_input_of_a_batch_is_a_request_of_its_tenant(running: RunningService) -> None:
    key = await key_of(running.service, "batches")

    async def send(inputs: int) -> httpx.Response:
        # Inputs that the graph does not take: they start no run, and count all the same.
        return await running.http.post("/react/batch", json={"inputs": [{}] * inputs}, headers=key)

    too_many = await send(9)
    assert (too_many.status_code, too_many.json()["error"]) == (422, "invalid_request")
    assert too_many.json()["details"] == {"inputs": 9, "limit": 8}
    # The refused batch was one request; this one is four.
    counted = await send(4)
    assert (counted.status_code, counted.headers["RateLimit"].split(";")[1]) == (422, "r=1")
    refused = await send(2)
    assert (refused.status_code, refused.json()["error"]) == (429, "rate_limited")
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert (await running.http.get("/info", headers=key)).status_code == 429


async def test_replicas_on_one_database_share_a_rate(running: RunningService) -> None:
    pool = running.service.pool
    replicas = [RateLimiter(PostgresStorage(pool), "5/minute") for _ in range(2)]
    told = [await replicas[number % 2].count_request("shared") for number in range(8)]
    assert [one.allowed for one in told if one] == [True] * 5 + [False] * 3
    storage = PostgresStorage(pool)
    assert await storage.incr("over", 0, 2) == 2
    assert await storage.incr("over", 9, 1) == 1
    assert 0 < await storage.get_expiry("over") - time.time() <= 9


async def test_an_unavailable_redis_stops_nobody(pool: Pool) -> None:
    redis = RedisSettings(url=SecretStr("redis://127.0.0.1:1/0"))
    async with open_storage(LimitSettings(), redis, pool) as counter:
        standing = await RateLimiter(counter, "5/minute").count_request("acme")
    assert standing
    assert (standing.allowed, standing.remaining) == (True, 4)


async def test_each_process_counts_by_itself_when_configured(pool: Pool) -> None:
    for _ in range(2):
        async with open_storage(LimitSettings(limit_in_process=True), RedisSettings(), pool) as counter:
            rates = RateLimiter(counter, "2/minute")
            allowed = [(standing := await rates.count_request("acme")) and standing.allowed for _ in range(3)]
        assert allowed == [True, True, False]


async def test_a_body_too_large_is_refused_however_it_is_sent(running: RunningService) -> None:
    key = await key_of(running.service, "acme")

    async def chunks(size: int) -> AsyncIterator[bytes]:
        yield b'{"input": {"task": "'
        for _ in range(size // 1_000):
            yield b"x" * 1_000
        yield b'"}}'

    for content in (b"x" * 20_001, chunks(25_000), chunks(100_000)):
        refused = await running.http.post("/react/invoke", content=content, headers=key)
        assert (refused.status_code, refused.json()["error"]) == (413, "too_large")
        assert refused.json()["details"] == {"limit_bytes": 20_000}
    # What fits is read, in pieces too: this one is only not what the graph takes.
    fits = await running.http.post("/react/invoke", content=chunks(5_000), headers=key)
    assert (fits.status_code, fits.json()["error"]) == (422, "invalid_request")


@pytest.mark.parametrize("framing", ["Content-Length: 5000", "Transfer-Encoding: chunked"])
async def test_a_body_that_trickles_is_cut_off(running: RunningService, framing: str) -> None:
    key = await key_of(running.service, "acme")
    host, port = running.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = ["POST /v1/messages HTTP/1.1", "Host: x", f"Authorization: {key['Authorization']}", framing]
    writer.write("\r\n".join([*head, "", "1\r\n{\r\n" if "chunked" in framing else "{"]).encode())
    # The rest never comes: the service answers and hangs up.
    answer = (await reader.read()).decode()
    writer.close()
    assert answer.startswith("HTTP/1.1 408 ")
    assert '"error":"body_too_slow"' in answer


async def test_a_chunked_message_is_answered(running: RunningService) -> None:
    key = await key_of(running.service, "acme")

    async def chunks() -> AsyncIterator[bytes]:
        yield f'{{"contact_id": "{CONTACT}", '.encode()
        yield f'"message": "{PARROT}"}}'.encode()

    answered = await running.http.post(
        "/v1/messages", content=chunks(), headers={**key, "Content-Type": "application/json"}
    )
    assert answered.json()["response"] == "A green one."


async def test_a_tenants_burst_leaves_slots_for_the_others(running: RunningService) -> None:
    slots = running.service.runs.slots("runs")
    assert (slots.limit, slots.owner_limit) == (100, 80)
