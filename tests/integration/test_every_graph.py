"""What holds for each graph of the registry, over HTTP, with the offline model."""

import json
from collections.abc import AsyncIterator
from html import unescape

import pytest
from jsonschema import Draft202012Validator

from graphs.registry import REGISTRY
from tests.support.service import RunningService, running_service

# Their examples end, or ask somebody, before the first model call where no language model is configured.
WITHOUT_CALLS = {
    "planning_monitor",
    "critique_refine",
    "hierarchical",
    "consensus",
    "sales",
    "onboarding",
    "workflow",
}


@pytest.fixture(scope="module")
async def running(shared_database_url: str) -> AsyncIterator[RunningService]:
    """One service for all of them: each run has a thread of its own."""
    async with running_service(shared_database_url) as opened:
        yield opened


@pytest.mark.parametrize("name", REGISTRY)
async def test_its_example_runs_and_the_answer_is_as_its_schema_says(
    running: RunningService, name: str
) -> None:
    response = await running.http.post(f"/{name}/invoke", json={"input": dict(REGISTRY[name].example)})
    assert response.status_code == 200, response.text
    output = response.json()["output"]
    schema = (await running.http.get(f"/{name}/output_schema")).json()
    Draft202012Validator(schema).validate(output)
    assert output["thread_id"] == response.headers["X-Thread-Id"]
    assert output["metadata"]["is_language_model"] is False
    if name == "consensus":
        # The voters abstain without a language model, so a person is asked.
        assert "language model" in output["interrupts"][0]["value"]["reason"]
        return
    # A graph that converses ends its first run with a question to the customer.
    kinds = [pending["value"].get("kind") for pending in output["interrupts"]]
    assert kinds == (["question"] if REGISTRY[name].asks == "customer" else [])
    assert output["messages"][-1]["type"] == "ai"


@pytest.mark.parametrize("name", REGISTRY)
async def test_its_tokens_carry_the_name_of_their_node(running: RunningService, name: str) -> None:
    nodes = set(running.service.graphs[name].nodes)
    body = {"input": dict(REGISTRY[name].example)}
    lines = (await running.http.post(f"/{name}/stream_events", json=body)).text.splitlines()
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
    tokens = [event for event in events if event.get("event") == "on_chat_model_stream"]
    assert bool(tokens) == (name not in WITHOUT_CALLS)
    assert all(token["metadata"]["langgraph_node"] for token in tokens)
    # Of this graph, or of one that runs inside a step of it.
    namespaces = [token["metadata"]["langgraph_checkpoint_ns"] for token in tokens]
    assert {namespace.split(":")[0] for namespace in namespaces} <= nodes


@pytest.mark.parametrize("name", REGISTRY)
async def test_its_playground_holds_its_example_and_its_schema_has_no_null(
    running: RunningService, name: str
) -> None:
    page = unescape((await running.http.get(f"/{name}/playground/")).text)
    assert json.dumps(dict(REGISTRY[name].example), indent=2, ensure_ascii=False) in page
    for kind in ("input_schema", "config_schema"):
        schema = (await running.http.get(f"/{name}/{kind}")).json()
        assert '"null"' not in json.dumps(schema)


@pytest.mark.parametrize("name", REGISTRY)
async def test_input_that_does_not_fit_is_a_422(running: RunningService, name: str) -> None:
    for given in ({}, {"contact_id": ""}, {**REGISTRY[name].example, "contact_id": "x" * 201}):
        refused = await running.http.post(f"/{name}/invoke", json={"input": given})
        assert (refused.status_code, refused.json()["error"]) == (422, "invalid_request")


@pytest.mark.parametrize("name", REGISTRY)
async def test_an_answer_without_a_thread_has_nothing_to_answer(running: RunningService, name: str) -> None:
    for resume in ({"decision": "approve"}, "yes", None):
        for endpoint in ("invoke", "stream", "batch"):
            one = {"resume": resume}
            body = {"inputs": [one]} if endpoint == "batch" else {"input": one}
            refused = await running.http.post(f"/{name}/{endpoint}", json=body)
            assert (refused.status_code, refused.json()["error"]) == (409, "nothing_to_resume"), endpoint
