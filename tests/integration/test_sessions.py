"""What a customer, the CRM, and somebody who tries to read another's conversation notice of sessions."""

import asyncio
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from langchain_core.messages import AIMessage

from core.errors import ModelRefused
from core.memory import Scope
from core.models import ChatModels
from core.postgres import Pool
from core.settings import ContextSettings, QueueSettings, SessionSettings
from core.tasks import Backoff
from service.queue import Retry
from service.sessions.store import Session, SessionStore
from service.sessions.worker import SessionWorker
from tests.support.general_agent import AGAIN, OTHER, PARROT, remembered, replying, say, service, shown
from tests.support.memory_faults import Line, line
from tests.support.queue import build_queue, fetch_jobs, summarise_closed
from tests.support.scripted import INFO, ScriptedChatModel
from tests.support.service import CONTACT, RunningService

__all__ = ["line"]

# What the model finds in a message that tells nothing of its writer.
NO_FACTS = '{"facts": []}'


def at(running: RunningService, minutes: float) -> None:
    """Put the sessions' clock so many minutes from now."""
    running.service.sessions._clock = lambda: datetime.now(UTC) + timedelta(minutes=minutes)


async def listed(running: RunningService, contact: str = CONTACT) -> list[dict[str, Any]]:
    answered = await running.http.get("/v1/sessions", params={"contact_id": contact})
    found: list[dict[str, Any]] = answered.raise_for_status().json()["sessions"]
    return found


async def test_a_contact_continues_the_session_of_a_channel_until_it_is_idle(database_url: str) -> None:
    model = replying(*"abcde")
    async with service(database_url, model) as running:
        first = (await say(running, PARROT, channel_id="whatsapp"))["session_id"]
        assert (await say(running, AGAIN, channel_id="whatsapp"))["session_id"] == first
        assert "green parrot" in shown(model)
        assert (await say(running, AGAIN, channel_id="mail"))["session_id"] != first
        assert (await say(running, AGAIN, OTHER, channel_id="whatsapp"))["session_id"] != first
        at(running, 31)
        assert (await say(running, AGAIN, channel_id="whatsapp"))["session_id"] != first


async def test_an_idle_session_is_closed_and_its_summary_can_be_found(database_url: str) -> None:
    async with service(database_url, replying("A green one.", NO_FACTS)) as running:
        session = (await say(running, PARROT, channel_id="whatsapp"))["session_id"]
        assert await summarise_closed(running) == 0
        at(running, 31)
        assert await summarise_closed(running) == 1
        [found] = await listed(running)
        assert (found["id"], found["closed_by"]) == (session, "idle")
        assert "green parrot" in found["summary"]
        assert (await running.http.get(f"/v1/sessions/{session}")).json() == found
        hits = (await running.service.memory.search(Scope("default", CONTACT), "summary parrot")).hits
        assert any(hit.id.startswith("summary:") and "green parrot" in hit.text for hit in hits)
        # Nothing is left to do, and doing it again changes nothing.
        assert await summarise_closed(running) == 0
        assert len(await remembered(running)) == 3


async def test_what_a_customer_is_told_of_a_failure_or_a_hand_off_is_no_memory(database_url: str) -> None:
    unsendable = ["Set GOOGLE_API_KEY to get answers."] * 2
    async with service(database_url, replying("A green one.", *unsendable, NO_FACTS)) as running:
        session = (await say(running, PARROT, channel_id="whatsapp"))["session_id"]
        failed = await say(running, AGAIN, channel_id="whatsapp")
        assert (failed["path"], failed["reason_incomplete"]) == ("handoff", "agents_failed")
        assert "green" not in failed["response"]
        assert await remembered(running) == [
            ("customer", PARROT),
            ("agent", "A green one."),
            ("customer", AGAIN),
        ]
        # The conversation keeps what was said, and the summary of the session, which has ended, does not.
        state = await running.service.graphs["coordinator"].aget_state(
            {"configurable": {"thread_id": session}}
        )
        assert [message.text for message in state.values["messages"]][-1] == failed["response"]
        assert await summarise_closed(running) == 1
        [found] = await listed(running)
        assert "green parrot" in found["summary"]
        assert "team" not in found["summary"]
        assert not any("team" in text for _, text in await remembered(running))


async def test_a_session_is_summarised_later_when_memory_is_unavailable(
    database_url: str, line: Line
) -> None:
    async with service(database_url, replying("A green one.", NO_FACTS)) as running:
        await say(running, PARROT, channel_id="whatsapp")
        at(running, 31)
        line.state = "down"
        assert await summarise_closed(running) == 0
        line.state = "up"
        at(running, 35)
        assert await summarise_closed(running) == 1


async def test_each_closed_session_is_queued_once_until_it_is_summarised(pool: Pool) -> None:
    store = SessionStore(pool, idle_seconds=60)
    # One at a time: a sweep may queue again what another job has just finished, which does no harm.
    queue = build_queue(pool, concurrency=1)
    summarised: list[str] = []

    async def summarise(session: Session) -> str:
        # A sweep comes while the session is being summarised.
        assert await worker.sweep() == 0
        summarised.append(session.id)
        return "Done."

    worker = SessionWorker(store, summarise, partial(queue.defer_missing, "session-summary"))
    queue.register("session-summary", worker.summarise)
    for name in ("a", "b"):
        await store.enter("default", name, channel_id="", session_id=name, message_id="", new_id="")
        await store.close("default", name)
    assert await worker.sweep() == 2
    assert await worker.sweep() == 0
    await queue.run(until_empty=True)
    assert sorted(summarised) == ["a", "b"]
    assert await worker.sweep() == 0


async def test_a_session_whose_job_was_lost_is_summarised_all_the_same(pool: Pool) -> None:
    store = SessionStore(pool, idle_seconds=60)
    queue = build_queue(pool)

    async def summarise(session: Session) -> str:
        return "Done."

    worker = SessionWorker(store, summarise, partial(queue.defer_missing, "session-summary"))
    queue.register("session-summary", worker.summarise)
    await store.enter("default", "a", channel_id="", session_id="a", message_id="", new_id="")
    await store.close("default", "a")
    assert await worker.sweep() == 1
    async with pool.connection() as connection:
        await connection.execute("DELETE FROM procrastinate_jobs")
    assert await worker.sweep() == 1
    await queue.run(until_empty=True)
    found = await store.get("default", "a")
    assert found
    assert found.summary == "Done."


async def test_a_session_that_fails_for_an_unforeseen_reason_does_not_stop_the_others(pool: Pool) -> None:
    store = SessionStore(pool, idle_seconds=60)
    queue = build_queue(pool)

    async def summarise(session: Session) -> str:
        if session.id == "broken":
            raise KeyError("messages")
        return "Done."

    worker = SessionWorker(store, summarise, partial(queue.defer_missing, "session-summary"))
    retry = Retry(backoff=Backoff(first=60, longest=60))
    queue.register("session-summary", worker.summarise, retry=retry)
    for name in ("broken", "fine"):
        await store.enter("default", name, channel_id="", session_id=name, message_id="", new_id="")
        await store.close("default", name)
    assert await worker.sweep() == 2
    await queue.run(until_empty=True)
    fine, broken = await store.get("default", "fine"), await store.get("default", "broken")
    assert fine
    assert broken
    assert (fine.summary, broken.summary) == ("Done.", None)
    # It waits for its next attempt and is not queued a second time.
    assert await worker.sweep() == 0
    assert await fetch_jobs(pool) == [("session-summary", "todo", 1)]


async def test_a_running_service_closes_idle_sessions_and_summarises_them(database_url: str) -> None:
    settings = SessionSettings(sweep_seconds=0.1)
    model = replying("A green one.", NO_FACTS)
    async with service(database_url, model, sessions=settings, queue=QueueSettings()) as running:
        await say(running, PARROT, channel_id="whatsapp")
        at(running, 31)
        while not (found := await listed(running)) or not found[0]["summary"]:
            pass
        assert "green parrot" in found[0]["summary"]


async def test_two_first_messages_at_once_open_one_session(database_url: str) -> None:
    async with service(database_url, replying("a", "b")) as running:
        both = await asyncio.gather(*(say(running, PARROT, channel_id="whatsapp") for _ in range(2)))
        assert both[0]["session_id"] == both[1]["session_id"]
        assert len(await listed(running)) == 1


@pytest.mark.parametrize("farewell", ["Thanks, bye!", "Até logo"])
async def test_a_goodbye_closes_the_session_and_the_next_message_opens_another(
    database_url: str, farewell: str
) -> None:
    async with service(database_url, replying("Bye.", "Hi.")) as running:
        first = await say(running, farewell, channel_id="whatsapp")
        assert first["ends_session"] is True
        assert (await listed(running))[0]["closed_by"] == "agent"
        assert (await say(running, PARROT, channel_id="whatsapp"))["session_id"] != first["session_id"]


@pytest.mark.parametrize("endpoint", ["invoke", "stream", "batch"])
async def test_a_goodbye_over_langserve_closes_the_session_too(database_url: str, endpoint: str) -> None:
    async with service(database_url, replying("Bye.", "Hi.")) as running:
        said = {"contact_id": CONTACT, "message": "Thanks, bye!", "channel_id": "whatsapp"}
        body = {"inputs": [said]} if endpoint == "batch" else {"input": said}
        answered = await running.http.post(f"/coordinator/{endpoint}", json=body)
        assert answered.status_code == 200
        [session] = await listed(running)
        assert session["closed_by"] == "agent"
        assert (await say(running, PARROT, channel_id="whatsapp"))["session_id"] != session["id"]


async def test_a_repeated_message_is_answered_once_even_after_a_restart(database_url: str) -> None:
    model = replying("A green one.", "Yes.")
    async with service(database_url, model) as running:
        first = await say(running, PARROT, message_id="wa-1")
        assert await say(running, PARROT, message_id="wa-1") == first
    async with service(database_url, model) as running:
        await say(running, AGAIN, message_id="wa-2", session_id=first["session_id"])
        again = await say(running, PARROT, message_id="wa-1")
        assert again == first
        assert len(model.prompts) == 2
        assert await remembered(running) == [
            ("customer", PARROT),
            ("agent", "A green one."),
            ("customer", AGAIN),
            ("agent", "Yes."),
        ]


async def test_concurrent_copies_of_a_message_are_answered_once(database_url: str) -> None:
    model = replying("A green one.")
    async with service(database_url, model) as running:
        both = await asyncio.gather(*(say(running, PARROT, message_id="wa-1") for _ in range(2)))
        assert both[0] == both[1]
        assert len(model.prompts) == 1


async def test_a_failed_run_resumes_when_its_message_is_repeated(database_url: str) -> None:
    model = ScriptedChatModel(replies=[RuntimeError("a bug"), AIMessage("A green one.")])
    async with service(database_url, model) as running:
        body = {"contact_id": CONTACT, "message": PARROT, "message_id": "wa-1"}
        assert (await running.http.post("/v1/messages", json=body)).status_code == 500
    async with service(database_url, model) as running:
        assert (await say(running, PARROT, message_id="wa-1"))["response"] == "A green one."
        assert await remembered(running) == [("customer", PARROT), ("agent", "A green one.")]


async def test_contacts_do_not_share_message_ids(database_url: str) -> None:
    async with service(database_url, replying("A green one.", "Hello.")) as running:
        first = await say(running, PARROT, message_id="wa-1")
        second = await say(running, AGAIN, OTHER, message_id="wa-1")
        assert second["response"] == "Hello."
        assert second["session_id"] != first["session_id"]


async def test_a_contact_cannot_enter_the_session_of_another(database_url: str) -> None:
    async with service(database_url, replying("A green one.", "Mine.")) as running:
        session = (await say(running, PARROT, channel_id="whatsapp"))["session_id"]
        for path, body in (
            ("/v1/messages", {"contact_id": OTHER, "message": AGAIN, "session_id": session}),
            (
                "/coordinator/invoke",
                {"input": {"contact_id": OTHER, "message": AGAIN, "session_id": session}},
            ),
            (
                "/coordinator/invoke",
                {
                    "input": {"contact_id": OTHER, "message": AGAIN},
                    "config": {"configurable": {"thread_id": session}},
                },
            ),
        ):
            refused = await running.http.post(path, json=body)
            assert (refused.status_code, refused.json()["error"]) == (403, "session_refused"), path
            assert "parrot" not in refused.text
        assert await listed(running, OTHER) == []
        assert await remembered(running, OTHER) == []
        # And it is still its owner's.
        assert (await say(running, AGAIN, session_id=session))["response"] == "Mine."


async def test_a_thread_begun_over_langserve_is_a_session_of_its_contact(database_url: str) -> None:
    async with service(database_url, replying("A green one.", "Yours.", "Mine.")) as running:

        async def invoke(contact: str, path: str = "coordinator", **given: Any) -> Any:
            body = {"input": {"contact_id": contact, "message": PARROT, **given}}
            return await running.http.post(f"/{path}/invoke", json=body)

        begun = (await invoke(CONTACT, channel_id="whatsapp")).raise_for_status().json()["output"]
        session = begun["session_id"]
        [found] = await listed(running)
        assert (found["id"], found["channel_id"]) == (session, "whatsapp")
        # It goes on over the other route, by its channel alone.
        assert (await say(running, AGAIN, channel_id="whatsapp"))["session_id"] == session
        # A thread that was begun before threads were sessions: nobody else gets it, or a row of it.
        async with running.service.pool.connection() as connection:
            await connection.execute("DELETE FROM sessions.sessions WHERE id = %s", (session,))
        stolen = {"contact_id": OTHER, "message": AGAIN, "session_id": session}
        for refused in (
            await running.http.post("/v1/messages", json=stolen),
            await invoke(OTHER, session_id=session),
        ):
            assert (refused.status_code, refused.json()["error"]) == (403, "session_refused")
        assert await listed(running, OTHER) == []
        # It is still its owner's, and a session from now on.
        assert (await say(running, AGAIN, session_id=session))["response"] == "Mine."
        assert [each["id"] for each in await listed(running)] == [session]


async def test_a_session_owns_its_thread_before_the_first_checkpoint(database_url: str) -> None:
    async with service(database_url, replying()) as running:
        # Its run was refused, stopped, or has not come that far.
        await running.service.sessions.enter(
            "default", CONTACT, channel_id="", session_id="taken", message_id="", new_id=""
        )
        body = {"input": {"contact_id": OTHER, "message": PARROT, "session_id": "taken"}}
        refused = await running.http.post("/coordinator/invoke", json=body)
        assert (refused.status_code, refused.json()["error"]) == (403, "session_refused")
        assert await listed(running, OTHER) == []
        # Nor is a thread of another graph a session.
        config: Any = {"configurable": {"thread_id": "react"}, "metadata": {"graph": "react"}}
        await running.service.graphs["react"].aupdate_state(config, {"contact_id": CONTACT}, as_node="think")
        stolen = {"contact_id": CONTACT, "message": AGAIN, "session_id": "react"}
        refused = await running.http.post("/v1/messages", json=stolen)
        assert refused.json()["error"] == "wrong_graph"
        assert [each["id"] for each in await listed(running)] == ["taken"]


async def test_an_unknown_session_is_not_found(database_url: str) -> None:
    async with service(database_url, replying()) as running:
        answered = await running.http.get("/v1/sessions/nobodys")
        assert (answered.status_code, answered.json()["error"]) == (404, "not_found")


TALK = "In point {} I tell a rather long story of what happened with the import of our customers. " * 6


async def test_older_turns_are_summarised_before_they_are_dropped(database_url: str) -> None:
    turns = 8
    small = ContextSettings(tokens=2_000)
    model = replying(*("Noted." for _ in range(turns)))
    async with service(database_url, model, context=small) as running:
        session = ""
        for number in range(turns):
            answer = await say(running, TALK.format(*[number] * 6), session_id=session or None)
            session = answer["session_id"]
            [context] = answer["metadata"]["context"]
            told = {each["section"]: each for each in context["sections"]}
            # Nothing that was said is simply gone: the summary tells of what is not shown in full.
            if "conversation" in told:
                assert told["conversation"]["dropped"] == []
        assert told["summary"]["included"] == ["session"]
        assert all(f"In point {number} " in shown(model) for number in range(turns))


def language_models(model: ScriptedChatModel) -> ChatModels:
    """Return models that write summaries and read facts; the others of this file only extract."""
    return ChatModels(INFO, lambda _: model, first_pause=0, rest_seconds=0)


async def test_a_language_model_writes_the_summary_and_no_customer_sees_it(database_url: str) -> None:
    model = replying("Noted.", "Noted.", "Noted.", "They told a long story.", "Noted.")
    async with service(database_url, language_models(model), context=ContextSettings(tokens=700)) as running:
        session = None
        for number in range(4):
            answer = await say(running, TALK.format(*[number] * 6), session_id=session)
            session = answer["session_id"]
            assert answer["response"] == "Noted."
        assert "They told a long story." in shown(model)


async def test_facts_a_customer_states_are_learnt_when_the_session_is_closed(database_url: str) -> None:
    moved = '{"facts": [{"predicate": "city", "object": "Lisbon", "kind": "changes"}]}'
    models = language_models(replying("Noted.", "They moved to Lisbon.", moved))
    async with service(database_url, models) as running:
        await say(running, "We have moved to Lisbon, by the way.", channel_id="whatsapp")
        at(running, 31)
        assert await summarise_closed(running) == 1
        [fact] = await running.service.memory.list_facts(Scope("default", CONTACT))
        assert (fact.predicate, fact.object) == ("city", "Lisbon")
        assert await summarise_closed(running) == 0


async def test_a_message_the_model_refuses_does_not_block_the_summary(database_url: str) -> None:
    model = replying("Noted.", "They moved to Lisbon.")
    model.replies.append(ModelRefused("blocked"))
    async with service(database_url, language_models(model)) as running:
        await say(running, "We have moved to Lisbon, by the way.", channel_id="whatsapp")
        at(running, 31)
        assert await summarise_closed(running) == 1
        assert await running.service.memory.list_facts(Scope("default", CONTACT)) == []
