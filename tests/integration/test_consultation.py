"""What a customer and a developer notice when an agent asks another one."""

from typing import Any

from httpx_sse import aconnect_sse
from langchain_core.messages import AIMessage

from core.errors import ModelUnavailable
from nodes.react.state import Reflection
from tests.support.scripted import Reply, ScriptedChatModel, calling, scripted_models
from tests.support.service import CONTACT, running_service

CANCEL = "I want to cancel my subscription."
QUESTION = {"agent": "billing_support", "question": "Is an invoice open?"}
DONE = Reflection(success=True, reasoning="It is known.", task_complete=True, final_answer="None is open.")


async def cancel(database_url: str, *replies: Reply) -> tuple[ScriptedChatModel, list[tuple[str, Any]]]:
    model = ScriptedChatModel(replies=list(replies))
    headers = {"Accept": "text/event-stream"}
    body = {"contact_id": CONTACT, "message": CANCEL}
    async with (
        running_service(database_url, scripted_models(model)) as running,
        aconnect_sse(running.http, "POST", "/v1/messages", json=body, headers=headers) as source,
    ):
        return model, [(event.event, event.json()) async for event in source.aiter_sse()]


async def test_an_agent_consults_another_which_looks_up_and_changes_nothing(database_url: str) -> None:
    model, events = await cancel(
        database_url,
        calling("", ("consult_agent", QUESTION)),
        calling("", ("get_invoices", {}), ("hand_over_to_human", {}), ("consult_agent", QUESTION)),
        AIMessage("All invoices are paid."),
        DONE,
    )
    _, answer = events[-1]
    assert (answer["agent_used"], answer["response"]) == ("churn_prevention", "None is open.")
    observed = {data["tool"]: data for name, data in events if name == "observation"}
    assert observed["consult_agent"]["result"] == {
        "answer": "All invoices are paid.",
        "steps": ["get_invoices: success", "hand_over_to_human: failed", "consult_agent: failed"],
        "citations": [],
        "unsupported": [],
    }
    # The consulted agent's words are not streamed to the customer.
    assert "paid" not in "".join(data["text"] for name, data in events if name == "token")
    # The contact's own day is known to the one who is asked, too.
    assert "time zone is America/Chicago" in model.prompts[1][0].text
    seen = "\n".join(message.text for message in model.prompts[2])
    assert "there is no tool 'hand_over_to_human'" in seen
    assert "there is no tool 'consult_agent'" in seen


async def test_a_colleague_who_cannot_answer_is_done_without(database_url: str) -> None:
    _, events = await cancel(
        database_url,
        calling("", ("consult_agent", QUESTION), ("consult_agent", {**QUESTION, "agent": "nobody"})),
        ModelUnavailable("the model is away"),
        DONE,
    )
    _, answer = events[-1]
    assert answer["response"] == "None is open."
    failures = [data["error"]["message"] for name, data in events if name == "observation"]
    assert any("billing_support could not answer: the model is away" in failure for failure in failures)
    assert any("there is no agent 'nobody'; there are: " in failure for failure in failures)
