"""The catalogue: everything HTTP, Studio and the documents need to know of a graph, once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from langgraph.graph import StateGraph
from langgraph.types import Durability
from pydantic import BaseModel

from graphs.react import build_react
from nodes.deps import Deps
from nodes.react.state import ReactInput, ReactOutput


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphSpec:
    """One graph.

    Attributes:
        name: Its path over HTTP and its id in Studio.
        description: One line.
        build: Gives the uncompiled graph.
        input_schema: What a run is given.
        output_schema: What a run answers, a ``TypedDict``.
        durability: When checkpoints are written: ``sync`` before the next step begins, which effects on
            the outside need; ``async`` beside it; ``exit`` at the end of the run.
        recursion_limit: Most super-steps of a run.
        example: An input to try it with.
    """

    name: str
    description: str
    build: Callable[[Deps], StateGraph[Any, Any, Any, Any]]
    input_schema: type[BaseModel]
    output_schema: type[Any]
    durability: Durability
    recursion_limit: int
    example: Mapping[str, Any]


REGISTRY: Mapping[str, GraphSpec] = {
    spec.name: spec
    for spec in (
        GraphSpec(
            name="react",
            description="Solves a support task: thinks, acts with the CRM's tools, reflects, until done.",
            build=build_react,
            input_schema=ReactInput,
            output_schema=ReactOutput,
            durability="sync",
            # Three super-steps an iteration, fifty iterations at most, and a few around them.
            recursion_limit=200,
            example={
                "task": "Customer reports 'Error 500' when trying to export contacts. "
                "Help diagnose and resolve.",
                "contact_id": "550e8400-e29b-41d4-a716-446655440000",
            },
        ),
    )
}
