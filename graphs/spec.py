"""What the registry knows of a graph, and how a graph is called and drawn."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

from langgraph.graph import StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Durability
from pydantic import BaseModel

from core.models import ChatModels
from nodes.coordinator.router import AgentRegistry, Router
from nodes.deps import Deps
from tools.crm.client import CrmClient

GraphKind: TypeAlias = Literal["model_driven", "workflow", "hybrid"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphSpec:
    """One graph of the registry.

    Attributes:
        name: Its path over HTTP and its id in Studio.
        description: One line.
        build: Builds the uncompiled graph.
        input_schema: The input of a run. No field may be null, because the playground cannot draw it.
        output_schema: The output of a run, a ``TypedDict``.
        durability: When checkpoints are written: ``sync`` before the next step begins, as external effects
            need; ``async`` while it runs; ``exit`` at the end of the run.
        recursion_limit: Maximum number of super-steps of a run.
        asks: Who answers its interrupts: a person of the ``company``, who finds them at /v1/approvals, or
            the ``customer``.
        example: An input to try it with.
        kind: Who decides the steps: the model, a definition, or fixed steps with a model in them.
        suits: The tasks it is the right choice for, in one sentence.
        calls_tools: Whether its model calls tools.
        journey: The input field that says what a thread is about, for a graph whose threads last for days and
            are continued by the contact's messages; empty: not such a graph.
    """

    name: str
    description: str
    build: Callable[[Deps], StateGraph[Any, Any, Any, Any]]
    input_schema: type[BaseModel]
    output_schema: type[Any]
    durability: Durability
    recursion_limit: int
    example: Mapping[str, Any]
    asks: Literal["company", "customer"] = "company"
    kind: GraphKind = "model_driven"
    suits: str = ""
    calls_tools: bool = False
    journey: Literal["", "contact_id", "opportunity_id"] = ""

    def validate_input(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the input with every default filled in, to be passed to the graph.

        See :func:`dump_input` for why every field has to be there, and why they are plain values.

        Raises:
            pydantic.ValidationError: The values do not fit the schema, or it does not have all of them.
        """
        return dump_input(self.input_schema.model_validate(values, extra="forbid"))


def dump_input(graph_input: BaseModel) -> dict[str, Any]:
    """Return a validated input as it is passed to a graph: plain values, with every default.

    LangGraph writes the keys of the input and no others, so a field that is left out would keep the value of
    the thread's last run. It also stores the input in the checkpoint, whose serializer restores plain values
    but no models.
    """
    return graph_input.model_dump()


async def run_subgraph(graph: CompiledStateGraph[Any, Any, Any, Any], graph_input: BaseModel) -> Any:
    """Run a compiled graph inside a node of another graph and return its output.

    The subgraph shares the run's thread, checkpointer, stream and cancellation. Call it at most once per node
    task: the task is its checkpoint namespace.
    """
    return await graph.ainvoke(dump_input(graph_input))


def draw_mermaid(spec: GraphSpec) -> str:
    """Return the graph's Mermaid diagram, drawn from its nodes, edges and ``Command`` annotations."""
    # Drawing calls no node, so no live dependency is needed.
    deps = Deps(
        models=cast("ChatModels", None),
        tools={},
        crm=cast("CrmClient", None),
        agents=AgentRegistry(specs={}, router=cast("Router", None)),
    )
    return spec.build(deps).compile().get_graph().draw_mermaid().strip()
