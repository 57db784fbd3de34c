"""RabbitMQ from the point of view of a CRM: commands are answered once, events come once they are true."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from core.settings import QueueSettings, RunSettings
from service.broker.publisher import MARK_SQL
from tests.support.broker import Broker, broker
from tests.support.events import add_events
from tests.support.general_agent import replying, service
from tests.support.queue import until_true
from tests.support.replicas import Gate
from tests.support.scripted import ScriptedChatModel
from tests.support.service import CONTACT, RunningService
from tests.support.waiting import until

pytestmark = pytest.mark.rabbitmq

UNPUBLISHED_SQL = "SELECT count(*) AS n FROM outbox.events WHERE is_unpublished"


@asynccontextmanager
async def connected(
    database_url: str, model: ScriptedChatModel | None = None, **settings: Any
) -> AsyncIterator[tuple[RunningService, Broker]]:
    groups = {name: settings.pop(name) for name in ("runs",) if name in settings}
    async with (
        broker(**settings) as own,
        service(
            database_url, model or replying(), amqp=own.settings, queue=QueueSettings(), **groups
        ) as running,
    ):
        yield running, own


def command(number: int = 1, **fields: Any) -> dict[str, Any]:
    return {
        "tenant": "default",
        "contact_id": CONTACT,
        "message": "Which parrot?",
        "message_id": f"m-{number}",
        "channel_id": "whatsapp",
        **fields,
    }


async def count_unpublished(running: RunningService) -> int:
    async with running.service.pool.connection() as connection:
        row = await (await connection.execute(UNPUBLISHED_SQL)).fetchone()
    return int(row["n"]) if row else 0


async def health(running: RunningService) -> dict[str, Any]:
    answered = await running.http.get("/health")
    assert answered.status_code == 200, "HTTP goes on without a broker"
    found: dict[str, Any] = answered.json()
    return found


async def test_a_command_is_answered_once_however_often_it_is_sent(database_url: str) -> None:
    async with connected(database_url, replying("A green one.")) as (running, own):
        for _ in range(3):
            await own.send(command())
        [answered] = await own.until_received(1, "message.answered")
        assert answered["data"]["response"] == "A green one."
        assert (answered["data"]["message_id"], answered["tenant"]) == ("m-1", "default")
        assert own.keys[:2] == ["default.session.opened", "default.message.answered"]
        # A marker behind the repetitions.
        await own.send(command(2, tenant="nobody"))
        await own.get_dead()
        await until(lambda: running.service.runs.active == 0)
        runs = (await running.http.get("/v1/runs")).json()["runs"]
    assert [run["status"] for run in runs] == ["success"]
    assert len(own.of("message.answered")) == 1


async def test_a_command_that_cannot_be_used_is_kept_with_the_reason(database_url: str) -> None:
    cases: list[tuple[Any, str]] = [
        ("no JSON", "validation_error"),
        ({"tenant": "default", "message_id": "m", "contact_id": CONTACT}, "validation_error"),
        (command(message=""), "validation_error"),
        (command(tenant="acme"), "unknown_tenant"),
    ]
    async with connected(database_url) as (_, own):
        for body, error in cases:
            await own.send(body)
            dead = await own.get_dead()
            assert dead.headers["x-error"] == error
            assert dead.headers["x-reason"]
            # None of the customer's words.
            assert "parrot" not in str(dead.headers)
        assert await own.count_commands() == 0


async def test_a_command_stays_with_the_broker_until_there_is_a_place_for_its_run(database_url: str) -> None:
    model = replying("First.", "Second.")
    gate = Gate(model)
    runs = RunSettings(max_concurrent=1)
    async with connected(database_url, model, runs=runs, prefetch=1) as (running, own):
        for number in range(4):
            await own.send(command(number, contact_id=f"contact-{number}"))
        await gate.begun.wait()
        # One has the place, one waits for it here, and the others are the broker's.
        await until_true(lambda: _holds(own, 2))
        assert running.service.runs.active == 2
        model.replies += ["Third.", "Fourth."]
        gate.open()
        await own.until_received(4, "message.answered")


async def _holds(own: Broker, count: int) -> bool:
    return await own.count_commands() == count


async def test_a_broker_that_is_away_loses_nothing_and_shows_in_health(database_url: str) -> None:
    async with connected(database_url, replying("A green one.")) as (running, own):
        pool = running.service.pool
        await add_events(pool, "thread", 2)
        await own.until_received(2)
        # Received is not recorded yet.
        await until_true(lambda: _all_published(running))
        await own.proxy.cut()
        await add_events(pool, "thread", 20)
        await own.send(command())

        async def is_degraded() -> bool:
            tasks = (await health(running))["tasks"]
            states = [tasks[name]["state"] for name in ("event-publisher", "commands")]
            return states == ["failing", "failing"]

        await until_true(is_degraded)
        assert await count_unpublished(running) == 20
        await own.proxy.open()
        await own.until_received(1, "message.answered")
        await own.until_received(22, "approval.needed")

        async def is_healthy() -> bool:
            return bool((await health(running))["status"] == "healthy")

        await until_true(is_healthy)
    of_thread = [int(event["sequence"]) for event in own.events if event.get("subject") == "thread"]
    assert list(dict.fromkeys(of_thread)) == list(range(1, 23))


async def test_an_event_that_was_published_and_not_recorded_comes_again_in_its_order(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connected(database_url) as (running, own):
        # As if the process died between the broker's confirmation and the commit.
        monkeypatch.setattr("service.broker.publisher.MARK_SQL", "SELECT 1 / 0 WHERE %s::text IS NOT NULL")
        await add_events(running.service.pool, "thread", 3)
        await own.until_received(3)
        assert await count_unpublished(running) == 3
        monkeypatch.setattr("service.broker.publisher.MARK_SQL", MARK_SQL)
        await until_true(lambda: _all_published(running))
    sequences = [int(event["sequence"]) for event in own.events]
    assert sequences[-3:] == [1, 2, 3]
    assert list(dict.fromkeys(sequences)) == [1, 2, 3]


async def _all_published(running: RunningService) -> bool:
    return await count_unpublished(running) == 0


async def test_two_replicas_publish_each_event_in_its_threads_order(database_url: str) -> None:
    async with (
        connected(database_url) as (running, own),
        service(database_url, replying(), amqp=own.settings, queue=QueueSettings()),
    ):
        for _ in range(20):
            await add_events(running.service.pool, "thread", 5)
        await own.until_received(100)
    assert [int(event["sequence"]) for event in own.events] == list(range(1, 101))
