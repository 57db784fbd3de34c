"""A page with ``@langchain/react``'s ``useStream``, in Node."""

from langchain_core.messages import AIMessage

from tests.integration.test_approvals import APPROVE, INPUT, REFUND, SEND
from tests.support.javascript import run_script
from tests.support.scripted import ScriptedChatModel, calling, scripted_models
from tests.support.service import running_service

ANSWER = "The last invoice is refunded, and I told them so."


async def test_a_page_shows_a_question_and_the_answer_also_when_its_connection_breaks(
    database_url: str,
) -> None:
    model = ScriptedChatModel(replies=[calling("I refund.", SEND), AIMessage(f"<reply>{ANSWER}</reply>")])
    async with running_service(database_url, scripted_models(model)) as running:
        given = {**INPUT, "reflection": "never"}
        shown = await run_script("use_stream.js", running.url, "react", given, APPROVE)
    assert shown["error"] is None
    assert shown["question"]["tool"] == SEND[0]
    assert shown["question"]["arguments"] == {"solution": REFUND}
    assert shown["broken"] == 1
    assert shown["interrupts"] == 0
    assert shown["tool_calls"] == [[SEND[0], "finished"]]
    assert [kind for kind, _ in shown["messages"]] == ["human", "ai", "tool", "ai"], shown
    assert shown["messages"][-1] == ["ai", ANSWER]
    assert shown["final_answer"] == ANSWER
