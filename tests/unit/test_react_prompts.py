"""Golden pictures of the ReAct graph: its diagram, its schemas, and all that a model is shown."""

import json
from collections.abc import Sequence
from typing import Annotated, cast

import pytest
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.tools import BaseTool, InjectedToolArg, tool
from pydantic import TypeAdapter
from syrupy.assertion import SnapshotAssertion

from core.context import Context
from core.errors import CrmRefused
from graphs.react import build_react
from graphs.registry import REGISTRY
from graphs.spec import draw_mermaid
from nodes.coordinator.router import Router
from nodes.coordinator.specialists import build_instruction
from nodes.deps import Deps
from nodes.react.state import ReactInput, Reflection
from nodes.shared.prompts import load_prompt
from tests.support.agents import load_shipped_agents
from tests.support.graphs import NO_AGENTS, empty_crm
from tests.support.scripted import ScriptedChatModel, calling, scripted_models
from tools.execution import CallContext

REACT = REGISTRY["react"]


@tool
async def look_up(query: str) -> dict[str, str]:
    """Look something up."""
    return {"article": f"What is known about {query}."}


@tool
async def send(text: str, context: Annotated[CallContext, InjectedToolArg]) -> str:
    """Send the customer a message."""
    if context.contact_id != "ana":
        raise AssertionError(context.contact_id)
    raise CrmRefused(f"the message {text!r} is too short", crm_status=422)


@tool
async def schedule_follow_up(day: str) -> str:
    """Enter an appointment."""
    return day


def reflection(reasoning: str, suggested: str | None = None) -> Reflection:
    return Reflection(success=True, reasoning=reasoning, task_complete=False, suggested_next_action=suggested)


SCRIPT = [
    calling("I look for the error.", ("look_up", {"query": "error 500"})),
    reflection("Large exports fail.", "find the limit"),
    calling("Limit and version at once.", ("look_up", {"query": "limit"}), ("look_up", {"query": "version"})),
    reflection("The limit is 10,000.", "tell the customer"),
    calling("I tell the customer.", ("send", {"text": "Hi"})),
    reflection("It was refused.", "write more"),
    calling("I ask for the number.", ("count", {})),
    reflection("There is no such tool."),
    AIMessage(""),
    AIMessage("Export in batches of 10,000."),
]


def shown(messages: Sequence[BaseMessage]) -> str:
    """The messages as text, without ids."""
    return "\n".join(line for message in messages for line in _lines(message))


def _lines(message: BaseMessage) -> list[str]:
    name = f" {message.name}" if isinstance(message, ToolMessage) else ""
    calls = message.tool_calls if isinstance(message, AIMessage) else []
    asked = [f"  -> {call['name']}({json.dumps(call['args'])})" for call in calls]
    return [f"<{message.type}{name}>", *([message.text] if message.text else []), *asked]


@pytest.fixture
async def asked() -> list[list[BaseMessage]]:
    """What a model was shown in the scripted run, call by call."""
    model = ScriptedChatModel(replies=list(SCRIPT))
    tools: dict[str, BaseTool] = {one.name: one for one in (look_up, send)}
    deps = Deps(models=scripted_models(model), tools=tools, crm=empty_crm(), agents=NO_AGENTS)
    output = (
        await build_react(deps)
        .compile()
        .ainvoke(
            cast(
                "ReactInput", ReactInput(task="Exports fail with error 500.", contact_id="ana").model_dump()
            ),
            {"recursion_limit": REACT.recursion_limit},
        )
    )
    assert output["final_answer"] == "Export in batches of 10,000."
    return model.prompts


def test_the_diagram(snapshot: SnapshotAssertion) -> None:
    assert draw_mermaid(REACT) == snapshot


@pytest.mark.parametrize("name", ["react", "react_role", "react_reflection", "react_reflection_question"])
def test_the_prompts(name: str, snapshot: SnapshotAssertion) -> None:
    assert load_prompt(name) == snapshot


def test_what_the_model_sees_in_the_fifth_iteration(
    asked: list[list[BaseMessage]], snapshot: SnapshotAssertion
) -> None:
    assert shown(asked[8]) == snapshot


def test_what_the_model_sees_after_a_reply_that_could_not_be_read(
    asked: list[list[BaseMessage]], snapshot: SnapshotAssertion
) -> None:
    assert asked[9][:-1] == asked[8]
    assert shown(asked[9][-1:]) == snapshot


def test_what_the_fourth_reflection_sees(asked: list[list[BaseMessage]], snapshot: SnapshotAssertion) -> None:
    assert shown(asked[7]) == snapshot


async def test_all_that_a_specialised_agent_sees_first(snapshot: SnapshotAssertion) -> None:
    spec = load_shipped_agents(cast("Router", None)).specs["scheduling"]
    model = ScriptedChatModel(replies=[AIMessage("Entered.")])
    tools = {one.name: one for one in (look_up, schedule_follow_up)}
    deps = Deps(models=scripted_models(model), tools=tools, crm=empty_crm(), agents=NO_AGENTS)
    task = ReactInput(
        task="Amanhã às 10h?",
        contact_id="ana",
        instruction=build_instruction(spec),
        expected_outcome="The appointment is entered.",
        background="The contact is Ana.",
        time_zone="America/Sao_Paulo",
        max_iterations=1,
    )
    output = (
        await build_react(deps)
        .compile()
        .ainvoke(cast("ReactInput", task.model_dump()), context=Context(locale="pt-BR"))
    )
    assert output["success"]
    assert shown(model.prompts[0]) == snapshot


def test_the_input(snapshot: SnapshotAssertion) -> None:
    assert REACT.input_schema.model_json_schema() == snapshot


def test_the_output(snapshot: SnapshotAssertion) -> None:
    schema = TypeAdapter(REACT.output_schema).json_schema()
    # The messages are LangChain's own.
    schema["$defs"] = {name: schema["$defs"][name] for name in ("Action", "Observation", "TraceEntry")}
    assert schema == snapshot


def test_what_a_reflection_must_be(snapshot: SnapshotAssertion) -> None:
    assert Reflection.model_json_schema() == snapshot
