"""What a CRM notices whose webhooks are sent events: signed, in order, again until they are received."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from core.postgres import Pool
from core.settings import QueueSettings, WebhookSettings
from service.outbox.catalogue import CATALOGUE, RunEnded
from service.webhooks.sender import BACKOFF
from tests.support.events import add_events
from tests.support.general_agent import replying, say, service
from tests.support.queue import until_true
from tests.support.receiver import Receiver, webhook_receiver
from tests.support.service import CONTACT, RunningService
from tests.support.waiting import until

MAKE_DUE_SQL = "UPDATE outbox.deliveries SET due_at = now() WHERE status = 'pending' AND due_at < 'infinity'"


@asynccontextmanager
async def hooked(
    database_url: str, *replies: str, queue: QueueSettings | None = None, **settings: Any
) -> AsyncIterator[tuple[RunningService, Receiver]]:
    """Open a service and a receiver that it may call."""
    async with webhook_receiver() as receiver:
        webhooks = WebhookSettings(allowed_hosts=receiver.host, **settings)
        async with service(
            database_url, replying(*replies), webhooks=webhooks, queue=queue or QueueSettings()
        ) as running:
            yield running, receiver


async def subscribe(running: RunningService, receiver: Receiver, **fields: Any) -> dict[str, Any]:
    created = await running.http.post("/v1/webhooks", json={"url": receiver.url, **fields})
    assert created.status_code == 201, created.text
    webhook: dict[str, Any] = created.json()
    receiver.keys.append(webhook["secret"])
    return webhook


async def deliveries(running: RunningService, webhook: dict[str, Any], **query: Any) -> list[dict[str, Any]]:
    found = await running.http.get(f"/v1/webhooks/{webhook['id']}/deliveries", params=query)
    listed: list[dict[str, Any]] = found.raise_for_status().json()["deliveries"]
    return listed


async def make_due(pool: Pool) -> None:
    """Let no delivery wait for its next attempt."""
    async with pool.connection() as connection:
        await connection.execute(MAKE_DUE_SQL)


async def test_the_answer_to_a_message_arrives_signed(database_url: str) -> None:
    async with hooked(database_url, "A green one.") as (running, receiver):
        webhook = await subscribe(running, receiver, types=["message.answered"])
        answer = await say(running, "Which parrot?")
        [event] = await receiver.until_received(1)
        assert (event["type"], event["subject"]) == ("message.answered", answer["session_id"])
        assert event["data"]["response"] == "A green one."
        assert event["specversion"] == "1.0"

        async def is_recorded() -> bool:
            [delivery] = await deliveries(running, webhook)
            return (delivery["status"], delivery["attempts"]) == ("delivered", 1)

        await until_true(is_recorded)
    assert receiver.refused == 0


async def test_a_refused_event_comes_again_and_the_threads_next_one_waits_for_it(database_url: str) -> None:
    async with hooked(database_url) as (running, receiver):
        webhook = await subscribe(running, receiver)
        pool = running.service.pool
        receiver.answer = lambda event: 500 if event["subject"] == "slow" else 200
        await add_events(pool, "slow", 3)
        await add_events(pool, "quick", 3)
        await receiver.until_received(3)
        assert receiver.list_sequences("quick") == [1, 2, 3]
        await until(lambda: len([event for event in receiver.attempts if event["subject"] == "slow"]) == 1)

        async def has_failed() -> bool:
            listed = await deliveries(running, webhook, status="pending")
            return [each["error"] for each in listed] == ["", "", "it answered 500"]

        await until_true(has_failed)
        receiver.answer = lambda _: 200
        await make_due(pool)
        await receiver.until_received(6)
        assert receiver.list_sequences("slow") == [1, 2, 3]


async def test_pauses_between_attempts_grow_to_hours() -> None:
    assert [BACKOFF.pause(attempt) for attempt in (1, 2, 5, 20)] == [5, 10, 80, 7_200]


async def test_what_was_never_received_is_given_up_and_can_be_sent_once_more(database_url: str) -> None:
    async with hooked(database_url, retry_hours=1e-9) as (running, receiver):
        webhook = await subscribe(running, receiver)
        receiver.answer = lambda _: 503
        await add_events(running.service.pool, "thread", 2)

        async def count_dead() -> bool:
            return len(await deliveries(running, webhook, status="dead")) == 2

        await until_true(count_dead)
        receiver.answer = lambda _: 200
        url = f"/v1/webhooks/{webhook['id']}"
        again = await running.http.post(f"{url}/redeliver")
        assert (again.status_code, again.json()) == (202, {"deliveries": 2})
        await receiver.until_received(2)
        assert receiver.list_sequences("thread") == [1, 2]
        # One that was delivered is sent once more, as the same webhook.

        async def all_delivered() -> bool:
            return len(await deliveries(running, webhook, status="delivered")) == 2

        await until_true(all_delivered)
        [second, _] = await deliveries(running, webhook)
        assert (await running.http.post(f"{url}/deliveries/{second['id']}/redeliver")).status_code == 202
        await receiver.until_received(3)
        assert receiver.received[2]["id"] == receiver.received[1]["id"] == second["event_id"]
        missing = await running.http.post(f"{url}/deliveries/{webhook['id']}/redeliver")
        assert missing.status_code == 404


async def test_after_a_rotation_either_secret_verifies(database_url: str) -> None:
    async with hooked(database_url) as (running, receiver):
        webhook = await subscribe(running, receiver)
        rotated = await running.http.post(f"/v1/webhooks/{webhook['id']}/rotate")
        assert rotated.json()["secret"] != webhook["secret"]
        for key in (webhook["secret"], rotated.json()["secret"]):
            receiver.keys, receiver.received = [key], []
            await add_events(running.service.pool, "thread", 1)
            await receiver.until_received(1)
        assert receiver.refused == 0


async def test_a_disabled_webhook_gets_its_events_in_order_when_it_is_enabled(database_url: str) -> None:
    async with hooked(database_url) as (running, receiver):
        webhook = await subscribe(running, receiver)
        url = f"/v1/webhooks/{webhook['id']}"
        await running.http.patch(url, json={"is_enabled": False})
        await add_events(running.service.pool, "thread", 3)
        waiting = (await running.http.get(url)).json()
        listed = (await running.http.get("/v1/webhooks")).json()["webhooks"]
        # Secrets are shown for single webhooks only.
        assert (waiting["secret"], "secret" in listed[0]) == (webhook["secret"], False)
        assert (waiting["pending"], waiting["is_enabled"]) == (3, False)
        assert receiver.attempts == []
        await running.http.patch(url, json={"is_enabled": True})
        await receiver.until_received(3)
    assert receiver.list_sequences("thread") == [1, 2, 3]


@pytest.mark.parametrize("status", [410, 500])
async def test_a_webhook_that_is_gone_or_fails_for_days_is_disabled_and_says_so(
    database_url: str, status: int
) -> None:
    async with hooked(database_url, disable_hours=1e-9) as (running, receiver):
        webhook = await subscribe(running, receiver)
        receiver.answer = lambda _: status
        await add_events(running.service.pool, "thread", 1)

        async def is_disabled() -> bool:
            if status == 500:
                await running.service.webhook_sender.upkeep()
            shown = (await running.http.get(f"/v1/webhooks/{webhook['id']}")).json()
            reason = "410 Gone" if status == 410 else "WEBHOOK_DISABLE_HOURS"
            return not shown["is_enabled"] and reason in shown["disabled_reason"]

        await until_true(is_disabled)


async def test_an_event_is_sent_again_by_another_process_when_one_dies_while_sending(
    database_url: str,
) -> None:
    async with hooked(database_url) as (running, receiver):
        receiver.gate.clear()
        await subscribe(running, receiver)
        await add_events(running.service.pool, "thread", 2)
        await until(lambda: len(receiver.attempts) == 1)
        # Nothing is recorded, as after kill -9; then the claim runs out.
        await running.service.webhook_sender.stop()
        receiver.gate.set()
        await make_due(running.service.pool)
        await until(lambda: len(receiver.attempts) >= 3)
    assert receiver.attempts[0]["id"] == receiver.attempts[1]["id"]
    assert [int(event["sequence"]) for event in receiver.attempts[:3]] == [1, 1, 2]


async def test_the_catalogue_is_listed_and_an_address_that_may_not_be_called_is_refused(
    database_url: str,
) -> None:
    async with service(database_url, replying()) as running:
        for url in (
            "http://169.254.169.254/latest/meta-data",
            "http://hooks.example.com/",
            "https://user:word@hooks.example.com/",
            "ftp://hooks.example.com/",
            "no address",
        ):
            refused = await running.http.post("/v1/webhooks", json={"url": url})
            assert refused.status_code == 422, refused.text
        assert (await running.http.get("/v1/webhooks")).json() == {"webhooks": []}
        types = (await running.http.get("/v1/webhooks/event-types")).json()["types"]
    assert [each["type"] for each in types] == list(CATALOGUE)
    assert types[0]["dataschema"] == "urn:ventros-agents:event:message.answered:1"
    assert "response" in types[0]["data"]["properties"]


async def test_a_name_that_leads_inside_our_own_network_is_never_connected_to(database_url: str) -> None:
    async with service(database_url, replying(), queue=QueueSettings()) as running:
        # It resolves to 127.0.0.1, which is known when it is called.
        created = await running.http.post("/v1/webhooks", json={"url": "https://localhost/hooks"})
        webhook = created.json()
        await add_events(running.service.pool, "thread", 1)

        async def is_refused() -> bool:
            [delivery] = await deliveries(running, webhook)
            return "not public" in delivery["error"]

        await until_true(is_refused)


async def test_the_end_of_a_run_goes_once_to_the_webhook_that_it_names(database_url: str) -> None:
    async with hooked(database_url, "It is on its way.") as (running, receiver):
        everything = await subscribe(running, receiver)
        body = {
            "assistant_id": "react",
            "input": {"task": "Where is the order?", "contact_id": CONTACT},
            "webhook": receiver.url,
            "metadata": {"ticket": "T-1"},
        }
        ended = await running.http.post("/runs/wait", json={**body, "on_completion": "keep"})
        assert ended.status_code == 200, ended.text
        _, listed = (await running.http.get("/v1/webhooks")).json()["webhooks"]
        assert (listed["is_for_runs"], listed["types"]) == (True, [])
        made = (await running.http.get(f"/v1/webhooks/{listed['id']}")).json()
        receiver.keys.append(made["secret"])
        await make_due(running.service.pool)
        ends: list[dict[str, Any]] = []

        def has_end() -> bool:
            ends[:] = [each for each in receiver.received if each["type"] == "run.ended"]
            return bool(ends)

        await until(has_end)
        [event] = ends
        RunEnded.model_validate(event["data"])
        assert (event["data"]["status"], event["data"]["metadata"]) == ("success", {"ticket": "T-1"})
        # It goes to no other endpoint, not even to one that takes all types.
        assert "run.ended" not in [each["type"] for each in await deliveries(running, everything)]


async def test_a_run_may_not_name_a_webhook_that_the_operator_does_not_allow(database_url: str) -> None:
    async with service(database_url, replying(), queue=QueueSettings()) as running:
        body = {"assistant_id": "react", "input": {"task": "?", "contact_id": CONTACT}}
        refused = await running.http.post("/runs/wait", json={**body, "webhook": "http://10.0.0.1/hook"})
        assert refused.status_code == 422, refused.text
        assert (await running.http.get("/v1/webhooks")).json()["webhooks"] == []
