"""A run never sees a value that only the last run was given, whoever runs the graph."""

from collections.abc import Mapping
from typing import Any, cast

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from pydantic import BaseModel
from typing_extensions import TypedDict

from core.context import Context
from graphs.registry import REGISTRY
from graphs.spec import GraphSpec, run_subgraph
from graphs.workflow_agents import RegistryGraphs
from nodes.deps import Deps
from service.runs.inputs import build_graph_input


class TasteInput(BaseModel):
    task: str
    flavour: str = "plain"
    toppings: list[str] = []


class TasteState(TypedDict, total=False):
    task: str
    flavour: str
    toppings: list[str]


def build_taste(_: Deps) -> StateGraph[Any, Any, Any, Any]:
    graph = StateGraph(TasteState, Context, input_schema=TasteInput, output_schema=TasteState)
    graph.add_node("taste", lambda state: {"task": state["task"]})
    graph.add_edge(START, "taste")
    graph.add_edge("taste", END)
    return graph


TASTE = GraphSpec(
    name="taste",
    description="Returns its input.",
    build=build_taste,
    input_schema=TasteInput,
    output_schema=TasteState,
    durability="sync",
    recursion_limit=10,
    example={"task": "Taste."},
)
RICH = {"task": "first", "flavour": "lemon", "toppings": ["mint"]}
BARE = {"task": "second"}


# The graph uses none of them.
DEPS = cast("Deps", None)


class CallerState(TypedDict, total=False):
    values: dict[str, Any]
    output: dict[str, Any]


def build_caller(run: Any, saver: InMemorySaver) -> Any:
    """Return a graph whose only node runs the subgraph with the values that it is given."""

    async def call(state: CallerState) -> CallerState:
        return {"output": dict(await run(state["values"]))}

    graph = StateGraph(CallerState)
    graph.add_node("call", call)
    graph.add_edge(START, "call")
    graph.add_edge("call", END)
    return graph.compile(checkpointer=saver)


@pytest.mark.parametrize("keeps_its_state", [False, True])
@pytest.mark.parametrize("caller", ["graph", "workflow"])
async def test_a_field_that_is_left_out_has_its_default(
    caller: str,
    keeps_its_state: bool,
) -> None:
    saver, config = InMemorySaver(), {"configurable": {"thread_id": "t"}}
    # A subgraph with its own checkpointer keeps its state from one run of its caller to the next.
    compiled = build_taste(DEPS).compile(checkpointer=True if keeps_its_state else None, name="taste")
    graphs = RegistryGraphs({"taste": TASTE}, DEPS)
    graphs._compiled["taste"] = compiled

    async def run(values: Mapping[str, Any]) -> Any:
        if caller == "workflow":
            return await graphs.run("taste", values)
        return await run_subgraph(compiled, TasteInput.model_validate(values))

    graph = build_caller(run, saver)
    assert (await graph.ainvoke({"values": RICH}, config))["output"] == RICH
    assert (await graph.ainvoke({"values": BARE}, config))["output"] == {
        "task": "second",
        "flavour": "plain",
        "toppings": [],
    }
    # The serializer of checkpoints restores plain values and no models.
    inputs = [each.checkpoint["channel_values"].get("__start__") for each in saver.list(None)]
    assert not [each for each in inputs if isinstance(each, BaseModel)]


async def test_a_request_without_a_field_has_its_default() -> None:
    graph = build_taste(DEPS).compile(checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "t"}}
    assert await graph.ainvoke(build_graph_input(TASTE, RICH), config) == RICH
    assert (await graph.ainvoke(build_graph_input(TASTE, BARE), config))["flavour"] == "plain"


@pytest.mark.parametrize("spec", REGISTRY.values(), ids=list(REGISTRY))
def test_every_graph_gets_all_fields_as_plain_values(spec: GraphSpec) -> None:
    graph_input = build_graph_input(spec, spec.example)
    assert isinstance(graph_input, dict)
    assert set(graph_input) == set(spec.input_schema.model_fields)
    assert not [value for value in graph_input.values() if isinstance(value, BaseModel)]
