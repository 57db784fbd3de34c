"""Which events the CRM is told of: each that became true, none that did not, in the order of its thread."""

import asyncio
from functools import partial
from typing import Any

import psycopg
import pytest

from core.context import Actor, act_as
from core.errors import ServiceError
from core.memory import NewFact, Scope
from core.postgres import Pool
from core.settings import QueueSettings
from memory.embedded import open_memory
from service.audit.idempotency import RecordedEffects
from service.conversations.announcements import announce_effect
from service.outbox.catalogue import ApprovalNeeded
from service.outbox.events import NewEvent, dump_events
from service.outbox.facts import announce_facts
from tests.integration.test_approvals import APPROVE, DONE, SEND, begin
from tests.support.events import keep_events, read_events
from tests.support.general_agent import replying, say, service
from tests.support.memory_grpc import lexical_embedder, over_grpc
from tests.support.queue import until_true
from tests.support.scripted import ScriptedChatModel, calling, scripted_models
from tests.support.service import CONTACT, running_service

QUESTION = {"name": "refund", "steps": [{"type": "approval", "id": "ask", "question": "Refund it?"}]}


async def test_a_conversation_is_told_from_its_opening_to_its_close(database_url: str) -> None:
    async with service(database_url, replying("A green one.", "It sings.")) as running:
        await keep_events(running.service.pool)
        first = await say(running, "Which parrot?", message_id="m-1", channel_id="mail")
        await say(running, "What does it do?", message_id="m-2", channel_id="mail")
        await say(running, "What does it do?", message_id="m-2", channel_id="mail")
        await running.service.sessions.close("default", first["session_id"])
        events = await read_events(running.service.pool)
    types = ["session.opened", "message.answered", "message.answered", "session.closed"]
    assert [event["type"] for event in events] == types
    assert [int(event["sequence"]) for event in events] == [1, 2, 3, 4]
    assert {event["subject"] for event in events} == {first["session_id"]}
    assert events[1]["data"] | {"run_id": ""} == {
        "run_id": "",
        "graph": "coordinator",
        "contact_id": CONTACT,
        "message_id": "m-1",
        "session_id": first["session_id"],
        "success": True,
        "response": "A green one.",
        "agent_used": "general",
        "path": "agent",
        "needs_person": False,
        "reason": None,
    }
    # The message that was sent twice was answered once.
    assert events[2]["data"]["response"] == "It sings."
    assert events[3]["data"]["closed_by"] == "agent"


async def test_nothing_is_kept_where_nobody_receives_events(database_url: str) -> None:
    async with service(database_url, replying("A green one.")) as running:
        await say(running, "Which parrot?")
        assert await read_events(running.service.pool) == []


async def test_a_question_to_a_person_and_the_decision_are_told(database_url: str) -> None:
    model = ScriptedChatModel(replies=[calling("I refund.", SEND), DONE])
    async with running_service(database_url, scripted_models(model)) as running:
        await keep_events(running.service.pool)
        await begin(running)
        [needed] = await read_events(running.service.pool)
        assert (needed["type"], needed["data"]["tool"]) == ("approval.needed", SEND[0])
        url = f"/v1/approvals/{needed['data']['approval_id']}"
        (await running.http.post(url, json=APPROVE)).raise_for_status()
        _, decided = await read_events(running.service.pool)
    assert (decided["type"], decided["data"]["decision"]) == ("approval.decided", "approve")
    assert decided["data"]["approval_id"] == needed["data"]["approval_id"]
    assert decided["subject"] == needed["subject"] == "waiting"


async def test_a_workflow_tells_of_its_question_once_and_of_its_end(database_url: str) -> None:
    async with running_service(database_url, queue=QueueSettings()) as running:
        await keep_events(running.service.pool)
        body = {"definition": QUESTION, "wait": True}
        begun = (await running.http.post("/v1/workflows", json=body)).raise_for_status().json()
        [needed] = await read_events(running.service.pool)
        assert (needed["type"], needed["subject"]) == ("approval.needed", begun["id"])
        url = f"/v1/approvals/{needed['data']['approval_id']}"
        (await running.http.post(url, json=APPROVE)).raise_for_status()
        await until_true(lambda: read_events(running.service.pool, "workflow.ended"))
        [ended] = await read_events(running.service.pool, "workflow.ended")
        types = [event["type"] for event in await read_events(running.service.pool)]
    assert types == ["approval.needed", "approval.decided", "workflow.ended"]
    assert (ended["data"]["name"], ended["data"]["status"]) == ("refund", "succeeded")


async def test_a_run_that_fails_is_told_with_its_error(database_url: str) -> None:
    model = ScriptedChatModel(replies=[ZeroDivisionError()])
    async with running_service(database_url, scripted_models(model)) as running:
        await keep_events(running.service.pool)
        body = {"input": {"task": "Export fails.", "contact_id": CONTACT}}
        answered = await running.http.post("/react/invoke", json=body)
        [failed] = await read_events(running.service.pool)
    assert answered.status_code == 500
    assert (failed["type"], failed["data"]["graph"]) == ("run.failed", "react")
    assert failed["data"]["error"] == answered.json()["error"]


async def test_a_handoff_and_a_deal_that_moves_are_told_with_their_effect(pool: Pool) -> None:
    await keep_events(pool)
    effects = RecordedEffects(pool, announce_effect)
    act_as(Actor(tenant="acme", thread_id="t-1", run_id="r-1"))
    handoff = {"id": "H-1", "contact_id": CONTACT, "team": "billing", "reason": "a refund"}
    deal = {"id": "OPP-1", "contact_id": CONTACT, "stage": "proposal"}

    async def refuse() -> dict[str, Any]:
        raise ServiceError("no")

    for key, action, arguments, outcome in (
        ("k-1", "hand_over", {"team": "billing"}, handoff),
        ("k-1", "hand_over", {"team": "billing"}, handoff),
        ("k-2", "update_opportunity", {"stage": "proposal"}, deal),
        ("k-3", "update_opportunity", {"needs": ["export"]}, deal),
    ):

        async def do(outcome: dict[str, Any] = outcome) -> dict[str, Any]:
            return outcome

        await effects.run_once(key, action, arguments, do)
    with pytest.raises(ServiceError):
        await effects.run_once("k-4", "hand_over", {}, refuse)
    handed, moved = await read_events(pool)
    assert (handed["type"], handed["data"]["team"]) == ("handoff.requested", "billing")
    assert (moved["type"], moved["data"]["stage"]) == ("deal.stage_changed", "proposal")
    assert [int(event["sequence"]) for event in (handed, moved)] == [1, 2]


async def test_a_fact_is_told_when_it_is_new_and_forgotten_with_its_contact(database_url: str) -> None:
    async with service(database_url, replying()) as running:
        await keep_events(running.service.pool)
        memory, scope = running.service.memory, Scope("default", CONTACT)
        for stated in ("Lisbon", "Lisbon", "Porto"):
            fact = NewFact(
                subject="contact", predicate="city", object=stated, confidence=0.9, source_message_id="m-1"
            )
            await memory.upsert_facts(scope, [fact])
        events = await read_events(running.service.pool)
        assert [event["data"]["object"] for event in events] == ["Lisbon", "Porto"]
        forgotten = await running.http.post("/v1/memory/forget", json={"contact_id": CONTACT})
        forgotten.raise_for_status()
        assert await read_events(running.service.pool) == []


async def test_a_fact_in_a_memory_service_of_its_own_is_told_once_also_after_a_crash(pool: Pool) -> None:
    """The embedded memory's own trigger is off, as in another database."""
    await keep_events(pool)
    scope = Scope("acme", CONTACT)
    fact = NewFact(
        subject="contact", predicate="city", object="Lisbon", confidence=0.9, source_message_id="m-1"
    )
    async with pool.connection() as connection:
        await connection.execute("ALTER TABLE memory.facts DISABLE TRIGGER announce_fact")
    async with open_memory(pool, lexical_embedder()) as embedded, over_grpc(embedded) as remote:
        # The process died when the memory had the fact, and its caller repeats it.
        await remote.upsert_facts(scope, [fact])
        assert await read_events(pool) == []
        remote.on_upserted = partial(announce_facts, pool)
        for _ in range(2):
            [change] = await remote.upsert_facts(scope, [fact])
        [told] = await read_events(pool)
    assert (told["data"]["object"], told["data"]["fact_id"]) == ("Lisbon", change.fact.id)


async def test_an_erased_thread_leaves_no_event(database_url: str) -> None:
    async with service(database_url, replying("A green one.")) as running:
        await keep_events(running.service.pool)
        session = (await say(running, "Which parrot?"))["session_id"]
        assert await read_events(running.service.pool)
        (await running.http.delete(f"/v1/threads/{session}")).raise_for_status()
        assert await read_events(running.service.pool) == []


async def test_events_of_a_thread_are_numbered_in_the_order_in_which_they_became_true(
    database_url: str, pool: Pool
) -> None:
    await keep_events(pool)
    add = "SELECT outbox.add_all('acme', %s::json)"
    async with (
        await psycopg.AsyncConnection.connect(database_url) as first,
        await psycopg.AsyncConnection.connect(database_url) as second,
        await psycopg.AsyncConnection.connect(database_url) as third,
    ):
        await first.execute(add, (_question("a"),))
        waiting = asyncio.create_task(second.execute(add, (_question("b"),)))
        # Another thread's event waits for nobody.
        await third.execute(add, (_question("c", thread="other"),))
        await third.commit()
        assert not waiting.done()
        await first.rollback()
        await waiting
        await second.commit()
        await first.execute(add, (_question("d"),))
        await first.commit()
    events = await read_events(pool)
    assert [(event["data"]["tool"], event["subject"], int(event["sequence"])) for event in events] == [
        ("c", "other", 1),
        ("b", "thread", 1),
        ("d", "thread", 2),
    ]


def _question(tool: str, thread: str = "thread") -> str | None:
    data = ApprovalNeeded(approval_id="0.thread", run_id="r", graph="react", tool=tool)
    return dump_events([NewEvent(data=data, thread_id=thread)])
