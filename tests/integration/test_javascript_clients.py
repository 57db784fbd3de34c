"""What users of JavaScript clients and of the service's pages notice."""

import json
from collections.abc import AsyncIterator

import pytest

from tests.integration.test_react_over_http import DONE, SEARCH, react_input
from tests.support.javascript import require_node, run_script
from tests.support.scripted import ScriptedChatModel, calling, scripted_models
from tests.support.service import RunningService, running_service


@pytest.fixture(scope="module")
async def running(shared_database_url: str) -> AsyncIterator[RunningService]:
    async with running_service(shared_database_url, scripted_models(ScriptedChatModel())) as opened:
        yield opened


async def test_remote_runnable_of_javascript_gets_the_whole_answer(database_url: str) -> None:
    require_node()
    script = [calling("I look it up.", SEARCH), DONE]
    model = ScriptedChatModel(replies=script * 6)
    async with running_service(database_url, scripted_models(model)) as running:
        seen = await run_script("remote_runnable.js", f"{running.url}/react", json.dumps(react_input()))
    invoked = seen["invoked"]
    assert (invoked["final_answer"], invoked["interrupts"]) == ("Use batches.", [])
    assert invoked["thread_id"]
    assert invoked["trace"][0]["observation"]["result"][0]["title"] == "Handling Large Exports"
    assert [kind for kind, _ in invoked["message_list"]] == ["human", "ai", "tool", "ai"]
    assert seen["again"] == {"thread_id": invoked["thread_id"], "turns": 8}
    assert seen["batch"] == ["Use batches."]
    assert seen["steps"] == ["prepare", "assemble", "think", "act", "reflect", "output"]
    assert seen["streamed"] == seen["last_event"] == "Use batches."
    assert seen["tools"] == ["search_knowledge_base"]
    assert seen["logged"] > 10
    assert "422" in seen["refusal"]


async def test_the_playground_shows_the_output_keeps_the_thread_and_answers_a_question(
    database_url: str,
) -> None:
    require_node()
    # Without a language model the voters abstain, and a person is asked.
    async with running_service(database_url) as running:
        page = await run_script("playground.js", f"{running.url}/consensus/playground/")
    asked, answered, again = page["seen"]
    assert [turn["error"] for turn in page["seen"]] == ["", "", ""]
    assert (asked["asks"], answered["asks"], again["asks"]) == (True, False, True)
    assert asked["thread"]
    assert asked["thread"] == answered["thread"] == again["thread"]
    assert answered["answer"] == "approve"
    assert answered["steps"] == ["ask_human", "finish"]
    assert page["sections"] == ["output", "steps"]
    assert page["mistake"].startswith("This is not valid JSON")


@pytest.mark.parametrize("path", ["/docs", "/crm/docs"])
async def test_the_documentation_of_the_api_is_shown_without_the_internet(
    running: RunningService, path: str
) -> None:
    require_node()
    page = await run_script("docs.js", f"{running.url}{path}")
    assert {"messages", "react"} <= set(page["tags"]) or path == "/crm/docs"
    assert page["loaded"]
    assert all(url.startswith((running.url, "data:")) for url in page["loaded"]), page["loaded"]
