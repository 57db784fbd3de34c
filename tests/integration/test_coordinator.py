"""The coordinator as a customer and the CRM notice it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias
from uuid import uuid4

import pytest
from httpx_sse import aconnect_sse
from langchain_core.messages import AIMessage, BaseMessage, SystemMessage

from core.errors import EmbeddingError, ModelRefused, ModelUnavailable
from core.settings import CrmSettings
from nodes.react.state import Reflection
from tests.support.crm_faults import closed_port
from tests.support.scripted import ScriptedChatModel, calling, scripted_models
from tests.support.service import CONTACT, RunningService, running_service
from tools.crm.connection import CrmConnection

# Each is an example message of its agent, of which the router is sure.
EXPORT = "Exporting my contacts ends with Error 500."
GREETING = "Hi there!"
# In scope, but like no agent's examples.
UNCLEAR = "Please do the thing with the colour."
AWAY = ModelUnavailable("the model is away")
LOOK = ("search_knowledge_base", {"query": "error 500 export"})
DONE = Reflection(success=True, reasoning="Found.", task_complete=True, final_answer="Export in batches.")


Answering: TypeAlias = Callable[..., AbstractAsyncContextManager[tuple[RunningService, ScriptedChatModel]]]


@asynccontextmanager
async def answering_alone(
    database_url: str, *replies: Any, **groups: Any
) -> AsyncIterator[tuple[RunningService, ScriptedChatModel]]:
    """A service of its own, for tests of what a service or a CRM counts."""
    model = ScriptedChatModel(replies=list(replies))
    async with running_service(database_url, scripted_models(model), **groups) as running:
        yield running, model


@pytest.fixture(scope="module")
async def answering(shared_database_url: str) -> AsyncIterator[Answering]:
    """The service that most tests share, each with its own script and its own sessions."""
    async with answering_alone(shared_database_url) as (running, model):

        @asynccontextmanager
        async def script(*replies: Any) -> AsyncIterator[tuple[RunningService, ScriptedChatModel]]:
            model.replies, model.prompts = list(replies), []
            for agent in running.service.agents.specs:
                running.service.agents.health.record_success(agent)
            yield running, model

        yield script


async def say(running: RunningService, message: str, **body: Any) -> dict[str, Any]:
    fields = {"contact_id": CONTACT, "session_id": str(uuid4()), "message": message, **body}
    answered = await running.http.post("/v1/messages", json=fields)
    assert answered.status_code == 200, answered.text
    answer: dict[str, Any] = answered.json()
    return answer


def system_of(asked: list[BaseMessage]) -> str:
    assert isinstance(asked[0], SystemMessage)
    return asked[0].text


@pytest.mark.parametrize("language", ["en", "pt"])
@pytest.mark.parametrize("name", ["billing_support", "general", "order_status", "technical_support"])
async def test_the_right_agent_answers(answering: Answering, name: str, language: Any) -> None:
    async with answering(AIMessage("Here it is.")) as (running, model):
        spec = running.service.agents.specs[name]
        answer = await say(running, spec.examples[language][0])
        assert (answer["agent_used"], answer["category"], answer["path"]) == (name, spec.category, "agent")
        assert (answer["success"], answer["response"]) == (True, "Here it is.")
        assert 0.5 < answer["confidence"] <= 1
        assert answer["alternatives"]
        assert name not in [each["agent"] for each in answer["alternatives"]]
        assert answer["handoff"] == {"recommended": False, "recorded": False, "team": "", "reason": ""}
        assert spec.prompt in system_of(model.prompts[0])


async def test_an_agent_knows_the_customer_and_calls_its_tools(answering: Answering) -> None:
    async with answering(calling("I look.", LOOK), DONE) as (running, model):
        answer = await say(running, EXPORT)
        assert answer["response"] == "Export in batches."
        assert answer["attempts"][0]["actions"] == ["search_knowledge_base"]
        assert "Laura" in "\n".join(message.text for message in model.prompts[0])


@pytest.mark.parametrize("agent", ["campaign_writing", "complaint_resolution"])
async def test_the_crm_is_asked_for_the_profile_once(
    database_url: str, agent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests: list[str] = []
    get = CrmConnection.get

    async def counted(self: CrmConnection, path: str, *args: Any, **kwargs: Any) -> Any:
        requests.append(path)
        return await get(self, path, *args, **kwargs)

    monkeypatch.setattr(CrmConnection, "get", counted)
    # Both patterns read the profile before they call a model.
    async with answering_alone(database_url, AWAY, AIMessage("The general agent answers.")) as (
        running,
        model,
    ):
        answer = await say(running, running.service.agents.specs[agent].examples["en"][0])
        assert [attempt["agent"] for attempt in answer["attempts"]] == [agent, "general"]
        assert "Laura" in "\n".join(message.text for message in model.prompts[0])
    assert requests.count(f"/contacts/{CONTACT}") == 1
    assert not any(path.endswith(("/subscription", "/tickets")) for path in requests)


async def test_an_answer_tells_its_sources_and_what_none_of_them_holds(answering: Answering) -> None:
    claimed = ["kb-large-exports", "kb-made-up"]
    done = DONE.model_copy(update={"final_answer": "Export in batches for $12.50.", "sources": claimed})
    async with answering(calling("I look.", LOOK), done) as (running, _):
        answer = await say(running, EXPORT)
        article = {
            "id": "kb-large-exports",
            "kind": "article",
            "title": "Handling Large Exports",
            "tool": "search_knowledge_base",
        }
        assert answer["response"] == "Export in batches for $12.50."
        assert (answer["success"], answer["interrupts"]) == (True, [])
        assert answer["metadata"]["citations"] == [article]
        assert answer["metadata"]["unsupported"] == ["$12.50"]
        assert answer["attempts"][0]["unsupported"] == ["$12.50"]


async def test_a_tool_of_another_agent_is_not_called(answering: Answering) -> None:
    ticket = ("create_engineering_ticket", {"title": "x", "description": "y", "severity": "low"})
    replies = (calling("I open a ticket.", ticket), replace_answer("I cannot do that."))
    async with answering(*replies) as (running, _):
        spec = running.service.agents.specs["order_status"]
        assert "create_engineering_ticket" not in spec.tools
        before = await running.crm("/engineering-tickets")
        await say(running, spec.examples["en"][0])
        assert await running.crm("/engineering-tickets") == before


def replace_answer(text: str) -> Reflection:
    return DONE.model_copy(update={"final_answer": text})


async def test_a_short_reply_stays_with_the_agent_that_asked(answering: Answering) -> None:
    async with answering(AIMessage("Which browser?"), AIMessage("Clear its cache.")) as (
        running,
        model,
    ):
        first = await say(running, EXPORT)
        second = await say(running, "Firefox", session_id=first["session_id"])
        assert second["agent_used"] == first["agent_used"] == "technical_support"
        assert "Which browser?" in "\n".join(message.text for message in model.prompts[1])


async def test_a_message_for_no_agent_goes_to_the_general_agent(answering: Answering) -> None:
    async with answering(AIMessage("I help with Ventros.")) as (running, _):
        answer = await say(running, "What is the capital of Mongolia?")
        assert (answer["success"], answer["response"]) == (True, "I help with Ventros.")
        assert [(each["agent"], each["chosen"]) for each in answer["dispatched"]] == [("general", "default")]


async def test_a_message_about_two_things_gets_one_answer_from_two_agents(answering: Answering) -> None:
    replies = [AIMessage("One part."), AIMessage("One part."), AIMessage("Both, in one.")]
    async with answering(*replies) as (running, model):
        answer = await say(running, MIXED)
        assert (answer["path"], answer["response"]) == ("merged", "Both, in one.")
        assert {each["agent"] for each in answer["attempts"]} == {"billing_support", "technical_support"}
        assert len(model.prompts) == 3


@pytest.mark.parametrize("merged", [[AWAY], [AIMessage("Set GOOGLE_API_KEY."), AIMessage("Dear {name}!")]])
async def test_answers_that_cannot_be_merged_follow_each_other(
    answering: Answering, merged: list[Any]
) -> None:
    replies = [AIMessage("One part."), AIMessage("Another part."), *merged]
    async with answering(*replies) as (running, _):
        answer = await say(running, MIXED)
        assert answer["path"] == "merged"
        assert sorted(answer["response"].split("\n\n")) == ["Another part.", "One part."]
        assert answer["agent_used"] in {"billing_support", "technical_support"}


MIXED = f"{EXPORT} Also, our last invoice shows the wrong tax number."


async def test_a_person_is_recommended_when_one_of_two_agents_fails(
    answering: Answering,
) -> None:
    async with answering(ModelRefused("blocked"), AIMessage("My part.")) as (running, _):
        answer = await say(running, MIXED)
        assert (answer["success"], answer["response"]) == (True, "My part.")
        assert answer["handoff"]["recommended"] is True
        assert "not all of it was answered" in answer["handoff"]["reason"]


async def test_the_general_agent_answers_when_an_agent_fails(answering: Answering) -> None:
    replies = [calling("I look.", LOOK), AWAY, AIMessage("Sorry, I only know this much.")]
    async with answering(*replies) as (running, model):
        answer = await say(running, EXPORT)
        assert (answer["success"], answer["agent_used"], answer["path"]) == (True, "general", "general")
        assert answer["handoff"]["recommended"] is True
        assert [each["outcome"] for each in answer["attempts"]] == ["failed", "answered"]
        shown = "\n".join(message.text for message in model.prompts[-1])
        assert "technical_support could not answer" in shown


async def test_a_person_takes_over_when_no_agent_can_answer(database_url: str) -> None:
    async with answering_alone(database_url, AWAY, AWAY) as (running, _):
        answer = await say(running, running.service.agents.specs["billing_support"].examples["pt"][0])
        assert (answer["success"], answer["path"], answer["reason_incomplete"]) == (
            False,
            "handoff",
            "agents_failed",
        )
        assert answer["response"].startswith("Desculpe")
        assert (answer["handoff"]["recommended"], answer["handoff"]["recorded"]) == (True, True)
        [handoff] = (await running.crm(f"/contacts/{CONTACT}/handoffs"))["handoffs"]
        assert handoff["team"] == answer["handoff"]["team"] == "billing"


async def test_another_agent_answers_when_one_takes_too_long(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nodes.coordinator.nodes.SPECIALIST_SECONDS", 0.05)
    never = asyncio.Event()
    model = ScriptedChatModel(replies=[AIMessage("One two."), AIMessage("Done")], before_token=never.wait)
    async with running_service(database_url, scripted_models(model)) as running:
        answer = await say(running, EXPORT)
        assert answer["attempts"][0]["outcome"] == "timed_out"
        assert answer["response"]


async def test_failures_in_a_row_recommend_a_person_and_degrade_health_until_a_success(
    database_url: str,
) -> None:
    failing = [AWAY, AIMessage("I only know this much.")]
    async with answering_alone(database_url, *failing * 5, AIMessage("Solved.")) as (running, _):
        reasons = [(await say(running, EXPORT))["handoff"]["reason"] for _ in range(5)]
        assert "in a row" not in reasons[1]
        assert reasons[2] == "technical_support failed 3 times in a row"
        health = (await running.http.get("/health")).json()
        assert health["status"] == "degraded"
        assert health["agents"]["degraded"] == [{"agent": "technical_support", "failures_in_a_row": 5}]
        assert (await say(running, EXPORT))["response"] == "Solved."
        assert (await running.http.get("/health")).json()["status"] == "healthy"


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("I want to talk to a person, please.", "A colleague will get back to you"),
        ("Quero falar com um atendente, por favor.", "Uma pessoa vai responder"),
        ("Creo que hubo una filtración de datos.", "equipo de privacidad y seguridad"),
    ],
)
async def test_a_customer_who_needs_a_person_is_handed_over_at_once(
    database_url: str, message: str, words: str
) -> None:
    async with answering_alone(database_url) as (running, model):
        answer = await say(running, message)
        assert (answer["success"], answer["path"]) == (True, "handoff")
        assert words in answer["response"]
        assert answer["handoff"]["recorded"] is True
        [handoff] = (await running.crm(f"/contacts/{CONTACT}/handoffs"))["handoffs"]
        assert (handoff["team"], handoff["summary"]) == (answer["handoff"]["team"], message)
        assert not model.prompts


COMPLAINT = "This is unacceptable, I want to make a formal complaint about your service."


@pytest.mark.parametrize("are_agents_able", [True, False])
async def test_a_complaint_is_answered_by_an_agent_and_a_person_is_called_once(
    database_url: str, are_agents_able: bool
) -> None:
    replies = [AWAY, AIMessage("I am sorry.") if are_agents_able else AWAY]
    async with answering_alone(database_url, *replies) as (running, model):
        answer = await say(running, COMPLAINT)
        assert answer["handoff"]["recorded"] is True
        [handoff] = (await running.crm(f"/contacts/{CONTACT}/handoffs"))["handoffs"]
        assert (handoff["team"], handoff["summary"]) == ("success", COMPLAINT)
        if are_agents_able:
            assert (answer["path"], answer["response"]) == ("general", "I am sorry.")
            assert "A person of the team success was called" in "\n".join(
                message.text for message in model.prompts[-1]
            )
        else:
            assert (answer["path"], answer["success"]) == ("handoff", False)
            assert "customer success team" in answer["response"]


async def test_the_answer_says_that_an_agent_called_a_person(answering: Answering) -> None:
    call = ("hand_over_to_human", {"team": "engineering", "reason": "Data is lost.", "summary": "Look."})
    async with answering(calling("I call them.", call), DONE) as (running, _):
        answer = await say(running, EXPORT)
        assert answer["handoff"] == {
            "recommended": True,
            "recorded": True,
            "team": "engineering",
            "reason": "Data is lost.",
        }
        assert answer["path"] == "agent"


async def test_the_customer_is_answered_while_the_crm_is_unavailable(database_url: str) -> None:
    crm = CrmSettings(api_base=f"http://127.0.0.1:{closed_port()}", max_attempts=1)
    async with answering_alone(database_url, AIMessage("Hello!"), crm=crm) as (running, _):
        assert (await say(running, GREETING))["response"] == "Hello!"
        answer = await say(running, "I want to talk to a person.")
        assert (answer["success"], answer["reason_incomplete"]) == (False, "handoff_not_recorded")
        assert answer["handoff"] == {**answer["handoff"], "recommended": True, "recorded": False}
        assert "write again" in answer["response"]


async def test_a_contact_unknown_to_the_crm_is_answered(answering: Answering) -> None:
    async with answering(AIMessage("Hello!")) as (running, _):
        assert (await say(running, GREETING, contact_id="nobody"))["response"] == "Hello!"


async def test_the_general_agent_answers_while_embeddings_fail(
    answering: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with answering(AIMessage("Hello!")) as (running, _):

        async def fail(text: str) -> Any:
            raise EmbeddingError("unavailable")

        monkeypatch.setattr(running.service.agents.router, "route_parts", fail)
        # Not a message whose routing another test has cached.
        answer = await say(running, "My export fails while embeddings do.")
        assert (answer["agent_used"], answer["response"]) == ("general", "Hello!")


async def test_a_stream_names_the_agent_before_its_tokens(answering: Answering) -> None:
    replies = [calling("I look.", LOOK), AWAY, AIMessage("Only this much.")]
    async with answering(*replies) as (running, _):
        body = {"contact_id": CONTACT, "session_id": str(uuid4()), "message": EXPORT}
        accept = {"Accept": "text/event-stream"}
        async with aconnect_sse(running.http, "POST", "/v1/messages", json=body, headers=accept) as source:
            events = [(event.event, json.loads(event.data)) async for event in source.aiter_sse()]
    names = [name for name, data in events if name != "token" and not (name == "thought" and data["text"])]
    assert names == ["start", "agent", "thought", "observation", "agent", "done"]
    agents = [data for name, data in events if name == "agent"]
    assert [(each["agent"], each["chosen"]) for each in agents] == [
        ("technical_support", "sure"),
        ("general", "fallback"),
    ]
    after = [
        data["text"]
        for name, data in events[[n for n, _ in events].index("observation") :]
        if name == "token"
    ]
    assert "".join(after) == "Only this much."


async def test_only_the_merged_answer_of_two_agents_is_streamed(answering: Answering) -> None:
    replies = [AIMessage("One part."), AIMessage("One part."), AIMessage("Both, in one.")]
    async with answering(*replies) as (running, _):
        body = {"contact_id": CONTACT, "session_id": str(uuid4()), "message": MIXED}
        accept = {"Accept": "text/event-stream"}
        async with aconnect_sse(running.http, "POST", "/v1/messages", json=body, headers=accept) as source:
            events = [(event.event, json.loads(event.data)) async for event in source.aiter_sse()]
    assert sum(name == "agent" for name, _ in events) == 2
    assert "".join(data["text"] for name, data in events if name == "token") == "Both, in one."


async def test_the_answer_of_an_agent_that_failed_is_cleared_for_the_next(answering: Answering) -> None:
    failed = Reflection(
        success=False, reasoning="No.", task_complete=True, final_answer="It cannot be exported."
    )
    async with answering(calling("I look.", LOOK), failed, AIMessage("Use batches.")) as (running, _):
        body = {"contact_id": CONTACT, "session_id": str(uuid4()), "message": EXPORT}
        accept = {"Accept": "text/event-stream"}
        async with aconnect_sse(running.http, "POST", "/v1/messages", json=body, headers=accept) as source:
            events = [(event.event, json.loads(event.data)) async for event in source.aiter_sse()]
    assert events[-1][1]["response"] == "Use batches."
    kinds = [name for name, _ in events if name in {"token", "agent", "reset"}]
    assert list(dict.fromkeys(kinds)) == ["agent", "token", "reset"]
    assert kinds[kinds.index("reset") + 1] == "agent"
    tokens = [data for name, data in events if name == "token"]
    void = next(data["message_id"] for name, data in events if name == "reset")
    assert "".join(data["text"] for data in tokens if data["message_id"] == void) == "It cannot be exported."
    assert "".join(data["text"] for data in tokens if data["message_id"] != void) == "Use batches."


async def test_langserve_returns_and_continues_the_session(answering: Answering) -> None:
    async with answering(AIMessage("Hello!"), AIMessage("Gladly.")) as (running, _):
        given = {"message": GREETING, "contact_id": CONTACT}
        response = await running.http.post("/coordinator/invoke", json={"input": given})
        output = response.json()["output"]
        assert output["session_id"] == output["thread_id"]
        assert [message["type"] for message in output["messages"]] == ["human", "ai"]
        on = {
            "message": "Thanks a lot for your help.",
            "contact_id": CONTACT,
            "session_id": output["session_id"],
        }
        response = await running.http.post("/coordinator/invoke", json={"input": on})
        assert response.json()["output"]["session_id"] == output["session_id"]
        assert len(response.json()["output"]["messages"]) == 4


async def test_an_unclear_message_is_asked_back(answering: Answering) -> None:
    replies = [AIMessage("Is it about an error or an order?"), calling("I look.", LOOK), DONE]
    async with answering(*replies) as (running, model):
        first = await say(running, UNCLEAR)
        assert (first["path"], first["success"], first["agent_used"]) == ("clarification", True, "")
        assert first["response"] == "Is it about an error or an order?"
        second = await say(running, EXPORT, session_id=first["session_id"])
        assert (second["path"], second["agent_used"]) == ("agent", "technical_support")
        # The agent that answers knows the unclear message.
        assert UNCLEAR in "\n".join(message.text for message in model.prompts[1])


async def test_a_second_unclear_message_is_not_asked_back(answering: Answering) -> None:
    replies = [AIMessage("What is it about?"), AIMessage("I am here for Ventros.")]
    async with answering(*replies) as (running, _):
        first = await say(running, UNCLEAR)
        second = await say(running, "asdf qwer zxcv", session_id=first["session_id"])
        assert (second["agent_used"], second["response"]) == ("general", "I am here for Ventros.")


async def test_without_a_model_the_question_is_a_fixed_text(answering: Answering) -> None:
    async with answering(AWAY) as (running, _):
        answer = await say(running, UNCLEAR)
        assert (answer["path"], answer["success"]) == ("clarification", True)
        assert answer["response"].startswith("I want to get this right")
