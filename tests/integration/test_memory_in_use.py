"""The memory as a customer notices it, over ``POST /v1/messages``."""

import pytest

from tests.support.general_agent import AGAIN, OTHER, PARROT, remembered, replying, say, service, shown
from tests.support.memory_faults import Line, line

__all__ = ["line"]


async def test_what_one_session_learnt_is_known_in_another_and_after_a_restart(
    database_url: str,
) -> None:
    async with service(database_url, replying("Nice.")) as running:
        first = await say(running, PARROT)
        assert first["metadata"]["memory"] == {"available": True, "degraded": [], "recorded": True}
    model = replying("Of course.")
    async with service(database_url, model) as running:
        second = await say(running, AGAIN)
        assert second["session_id"] != first["session_id"]
        [context] = second["metadata"]["context"]
        [memories] = [each for each in context["sections"] if each["section"] == "memories"]
        assert len(memories["included"]) == 2
        session = first["session_id"][:8]
        assert f"message of session {session}] customer: I write from the shop" in shown(model)


async def test_an_outage_of_the_memory_costs_no_answer_and_no_message(database_url: str, line: Line) -> None:
    model = replying("Nice.", "Yes.", "I do.")
    async with service(database_url, model) as running:
        session = (await say(running, PARROT))["session_id"]
        line.state = "down"
        second = await say(running, AGAIN, session_id=session)
        assert (second["success"], second["response"]) == (True, "Yes.")
        assert second["metadata"]["memory"]["available"] is False
        assert second["metadata"]["memory"]["recorded"] is False
        assert second["metadata"]["memory"]["degraded"] == [
            "facts: the line is cut",
            "search: the line is cut",
            "record: the line is cut",
        ]
        # The session's own messages are there without memory.
        assert "green parrot" in shown(model)
        line.state = "up"
        third = await say(running, "Still there?", session_id=session)
        # What was stored just now may wait for its vectors.
        memory = third["metadata"]["memory"]
        assert (memory["available"], memory["recorded"]) == (True, True)
        assert await remembered(running) == [
            ("customer", PARROT),
            ("agent", "Nice."),
            ("customer", AGAIN),
            ("agent", "Yes."),
            ("customer", "Still there?"),
            ("agent", "I do."),
        ]


async def test_a_hanging_memory_does_not_delay_answers(
    database_url: str, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nodes.shared.memory.RETRIEVAL_SECONDS", 0.05)
    monkeypatch.setattr("nodes.shared.memory.RECORD_SECONDS", 0.05)
    line.state = "hanging"
    async with service(database_url, replying("Nice.")) as running:
        answer = await say(running, PARROT)
        assert answer["response"] == "Nice."
        assert "memory did not answer within 0.05 s" in " ".join(answer["metadata"]["memory"]["degraded"])


async def test_the_context_of_an_agent_is_recorded(database_url: str) -> None:
    async with service(database_url, replying("Nice.")) as running:
        answer = await say(running, PARROT)
        [context] = answer["metadata"]["context"]
        assert (context["agent"], context["strategy"]) == ("general", "general")
        assert [each["section"] for each in context["sections"]] == ["system", "customer"]
        assert 0 < context["tokens"] == sum(each["tokens"] for each in context["sections"])
        assert context["tokens"] <= context["budget"] == running.service.settings.context.tokens
        # And in the thread's state, which Studio shows.
        state = await running.service.graphs["coordinator"].aget_state(
            {"configurable": {"thread_id": answer["session_id"]}}
        )
        assert state.values["context"] == [context]


async def test_no_contact_learns_anything_about_another(database_url: str) -> None:
    model = replying("Nice.", "No.")
    async with service(database_url, model) as running:
        await say(running, PARROT)
        await say(running, AGAIN, OTHER)
        assert "green" not in shown(model)
        assert await remembered(running, OTHER) == [("customer", AGAIN), ("agent", "No.")]
