"""What the registry knows of a graph."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from langgraph.graph import StateGraph
from langgraph.types import Durability
from pydantic import BaseModel

from nodes.deps import Deps


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphSpec:
    """One graph.

    Attributes:
        name: Its path over HTTP and its id in Studio.
        description: One line.
        build: Gives the uncompiled graph.
        input_schema: What a run is given. No field may be null: the playground cannot draw it.
        output_schema: What a run answers, a ``TypedDict``.
        durability: When checkpoints are written: ``sync`` before the next step begins, which effects on
            the outside need; ``async`` beside it; ``exit`` at the end of the run.
        recursion_limit: Most super-steps of a run.
        asks: Whose answer its interrupts wait for: a person of the ``company``, who finds them at
            /v1/approvals, or the ``customer``.
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
    asks: Literal["company", "customer"] = "company"
