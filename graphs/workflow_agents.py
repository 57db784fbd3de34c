"""Graphs of the registry as steps of workflows."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from langgraph.graph.state import CompiledStateGraph
from pydantic import JsonValue, ValidationError
from pydantic_core import to_jsonable_python

from core.errors import StepFailed
from graphs.spec import GraphSpec
from nodes.deps import Deps


class RegistryGraphs:
    """The service's :class:`workflows.ports.GraphCaller`.

    Args:
        specs: The graphs by name. None of them may run workflows, so that none can run itself, and none may
            ask a customer, who could not answer.
        deps: What they are built with.
    """

    def __init__(self, specs: Mapping[str, GraphSpec], deps: Deps) -> None:
        self._specs = specs
        self._deps = deps
        self._compiled: dict[str, CompiledStateGraph[Any, Any, Any, Any]] = {}

    @property
    def names(self) -> Sequence[str]:
        """The graphs that may be a step."""
        return sorted(self._specs)

    async def run(self, graph: str, values: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
        """Run a graph to its end (:class:`workflows.ports.GraphCaller`)."""
        spec = self._specs[graph]
        try:
            graph_input = spec.validate_input(values)
        except ValidationError as error:
            faults = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
            raise StepFailed(f"the input does not fit {graph!r}: {faults}") from error
        if graph not in self._compiled:
            # A graph that is compiled without a checkpointer uses the workflow's.
            self._compiled[graph] = spec.build(self._deps).compile(name=graph)
        output = await self._compiled[graph].ainvoke(graph_input, {"recursion_limit": spec.recursion_limit})
        return cast("dict[str, JsonValue]", to_jsonable_python(output, fallback=str))
