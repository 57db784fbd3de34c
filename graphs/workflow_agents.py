"""The graphs of the registry as steps of workflows."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from langgraph.graph.state import CompiledStateGraph
from pydantic import JsonValue, ValidationError
from pydantic_core import to_jsonable_python

from core.errors import StepFailed
from graphs.spec import GraphSpec
from nodes.deps import Deps


class RegistryGraphs:
    """The :class:`workflows.ports.GraphCaller` of the service.

    Args:
        specs: The graphs by name. None of them may run workflows, so that none runs itself, and none may
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

    async def call(self, graph: str, given: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
        """Run to the end (:class:`workflows.ports.GraphCaller`)."""
        spec = self._specs[graph]
        try:
            values = spec.validate_input(given)
        except ValidationError as error:
            faults = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
            raise StepFailed(f"the input does not fit {graph!r}: {faults}") from error
        if graph not in self._compiled:
            # Without a checkpointer of its own it has the workflow's.
            self._compiled[graph] = spec.build(self._deps).compile(name=graph)
        output = await self._compiled[graph].ainvoke(values, {"recursion_limit": spec.recursion_limit})
        return cast("dict[str, JsonValue]", to_jsonable_python(output, fallback=str))
