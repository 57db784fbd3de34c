"""Callers who follow a run on another replica, or come back to one."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from httpx_sse import ServerSentEvent, aconnect_sse
from langchain_core.messages import AIMessage

from core.settings import QueueSettings
from tests.support.audit import fetch_rows
from tests.support.replicas import Gate, Replicas, two_replicas
from tests.support.service import CONTACT, RunningService

WORDS = "Use the batch export API for large exports."


@pytest.fixture
async def replicas(database_url: str) -> AsyncIterator[Replicas]:
    async with two_replicas(database_url, queue=QueueSettings()) as opened:
        for model in opened.models:
            model.replies.append(AIMessage(WORDS))
        yield opened


async def follow(up: RunningService, run_id: str, after: str = "") -> list[ServerSentEvent]:
    headers = {"Last-Event-ID": after} if after else {}
    async with aconnect_sse(up.http, "GET", f"/v1/runs/{run_id}/stream", headers=headers) as source:
        assert source.response.status_code == 200
        return [event async for event in source.aiter_sse()]


async def send(up: RunningService) -> list[ServerSentEvent]:
    """Send a message and read its stream."""
    body = {"contact_id": CONTACT, "message": "My export fails.", "session_id": "followed"}
    headers = {"Accept": "text/event-stream"}
    async with aconnect_sse(up.http, "POST", "/v1/messages", json=body, headers=headers) as source:
        return [event async for event in source.aiter_sse()]


async def find_run(replicas: Replicas) -> str:
    while not (
        rows := await fetch_rows(
            replicas.first.service.pool, "SELECT id::text FROM runs.runs WHERE thread_id = %s", "followed"
        )
    ):
        pass
    return str(rows[0]["id"])


def text_of(events: list[ServerSentEvent]) -> str:
    return "".join(event.json()["text"] for event in events if event.event == "token")


@pytest.mark.parametrize("where", ["first", "second"])
async def test_a_run_is_followed_while_it_runs_and_the_rest_of_it_after_a_reconnect(
    replicas: Replicas, where: str
) -> None:
    gate, up = Gate(replicas.models[0]), getattr(replicas, where)
    sending = asyncio.create_task(send(replicas.first))
    await gate.begun.wait()
    run_id = await find_run(replicas)
    following = [asyncio.create_task(follow(up, run_id)) for _ in range(2)]
    gate.open()
    events, twin = await asyncio.gather(*following)
    sent = await sending
    assert text_of(events) == text_of(sent) == WORDS
    assert [event.id for event in events] == [event.id for event in twin]
    numbers = [int(event.id) for event in events[:-1]]
    assert numbers == sorted(set(numbers))
    assert [event.event for event in (events[0], events[-1])] == ["attempt", "done"]
    assert events[-1].json()["output"]["response"] == WORDS
    middle = len(events) // 2
    rest = await follow(up, run_id, events[middle].id)
    assert [event.id for event in rest[:-1]] == [event.id for event in events[middle + 1 : -1]]
    # The ids of the stream that began the run are the same.
    own = {event.id: event.data for event in sent if event.event == "token"}
    assert own == {event.id: event.data for event in events if event.event == "token"}


async def test_an_ended_run_is_followed_on_another_replica(replicas: Replicas) -> None:
    sent = await send(replicas.first)
    events = await follow(replicas.second, await find_run(replicas))
    assert text_of(events) == text_of(sent) == WORDS
    assert events[-1].json()["status"] == "success"


async def test_a_follower_is_told_of_the_next_attempt_when_the_replica_dies(replicas: Replicas) -> None:
    gate = Gate(replicas.models[0])
    sending = asyncio.create_task(send(replicas.first))
    await gate.begun.wait()
    run_id = await find_run(replicas)
    following = asyncio.create_task(follow(replicas.second, run_id))
    # The first replica is silent from now on, and its claim has expired.
    await fetch_rows(
        replicas.second.service.pool,
        "UPDATE runs.runs SET claimed_by = gen_random_uuid(), claim_expires_at = now() - interval '1 second' "
        "WHERE id = %s RETURNING id",
        run_id,
    )
    replicas.models[0].before_token = None
    replicas.models[0].replies.append(AIMessage(WORDS))
    events = await following
    attempts = [event.json()["attempt"] for event in events if event.event == "attempt"]
    assert attempts[-1] == 2
    assert events[-1].json()["output"]["response"] == WORDS
    gate.open()
    await sending
