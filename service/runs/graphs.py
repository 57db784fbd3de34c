"""The graphs that runs are asked of by name: those of the registry, and others beside them."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from langchain_core.runnables import RunnableConfig
from langgraph.graph.state import CompiledStateGraph
from langgraph.store.base import BaseStore
from langgraph.types import Checkpointer
from langgraph_sdk.runtime import _ExecutionRuntime, _ReadRuntime

from core.errors import InvalidRequest, NotFound
from graphs.spec import GraphSpec
from service.runs.request import CompiledGraph

# Why a graph factory is called, in LangGraph's words.
AccessContext: TypeAlias = Literal["threads.create_run", "threads.update", "threads.read", "assistants.read"]
# Returns a compiled graph, or awaits one; called with a config, a ``ServerRuntime``, both or nothing.
GraphFactory: TypeAlias = Callable[..., Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentGraph:
    """A graph that runs can be asked of.

    Attributes:
        name: Its name, which is also its id in the Agent Server API.
        description: One line.
        spec: Its entry in the registry; ``None``: it is not ours, so that its input and context are its own.
        source: The compiled graph with its checkpointer, or a factory that compiles it for each use.
        checkpointer: Given to what the factory returns.
        store: Given to the factory.
    """

    name: str
    description: str = ""
    spec: GraphSpec | None = None
    source: CompiledGraph | GraphFactory
    checkpointer: Checkpointer = None
    store: BaseStore | None = None

    def build_input(self, values: Any) -> Any:
        """Return the input as the graph is given it: of a graph of the registry, validated and complete.

        Fields of the state that are no input are left out, because a graph that has this one for a node gives
        it all it knows.

        Raises:
            pydantic.ValidationError: The values do not fit the input schema.
            InvalidRequest: There is a field that the graph does not know.
        """
        if self.spec is None:
            return values
        fields = self.spec.input_schema.model_fields
        state = self.source.channels if isinstance(self.source, CompiledStateGraph) else {}
        unknown = values.keys() - fields.keys() - state.keys() if isinstance(values, Mapping) else set()
        if unknown:
            raise InvalidRequest(
                f"input.{min(unknown)[:100]}: {self.name!r} has no such field; there are {', '.join(fields)}"
            )
        return self.spec.validate_input(values)

    async def open(
        self,
        access: AccessContext,
        *,
        config: RunnableConfig | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> CompiledGraph:
        """Return the compiled graph.

        Args:
            access: What it is used for.
            config: The run's, for a factory.
            context: The run's, for a factory.
        """
        if isinstance(self.source, CompiledStateGraph):
            return self.source
        common: dict[str, Any] = {"access_context": access, "store": self.store}
        runtime = (
            _ExecutionRuntime(**common, context=context)
            if access == "threads.create_run"
            else _ReadRuntime(**common)
        )
        made = self.source(*_select_arguments(self.source, config or {}, runtime))
        return attach(
            await made if inspect.isawaitable(made) else made, self.name, self.checkpointer, self.store
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignGraph:
    """A graph that is not of the registry, as whoever starts the service names it.

    Attributes:
        name: Its name.
        source: A compiled graph, or a factory (see :data:`GraphFactory`).
        description: One line.
    """

    name: str
    source: CompiledGraph | GraphFactory
    description: str = field(default="")


class GraphCatalogue(dict[str, AgentGraph]):
    """The graphs by name."""

    def find(self, name: str) -> AgentGraph:
        """Return a graph.

        Raises:
            NotFound: There is none of that name.
        """
        graph = self.get(name)
        if graph is None:
            raise NotFound(
                f"there is no graph {name[:100]!r}; there are {', '.join(self)}",
                details={"graph": name[:100]},
            )
        return graph


def build_catalogue(
    compiled: Mapping[str, CompiledGraph],
    registry: Mapping[str, GraphSpec],
    foreign: tuple[ForeignGraph, ...] = (),
    *,
    checkpointer: Checkpointer = None,
    store: BaseStore | None = None,
) -> GraphCatalogue:
    """Return the catalogue of the registry's graphs and of foreign ones.

    Args:
        compiled: The registry's graphs.
        registry: Their entries.
        foreign: Others.
        checkpointer: The saver of the foreign ones.
        store: Their store.
    """
    ours = {
        name: AgentGraph(name=name, description=registry[name].description, spec=registry[name], source=graph)
        for name, graph in compiled.items()
    }
    others = {
        each.name: AgentGraph(
            name=each.name,
            description=each.description,
            source=attach(each.source, each.name, checkpointer, store)
            if isinstance(each.source, CompiledStateGraph)
            else each.source,
            checkpointer=checkpointer,
            store=store,
        )
        for each in foreign
    }
    return GraphCatalogue({**ours, **others})


def attach(
    graph: CompiledGraph, name: str, checkpointer: Checkpointer, store: BaseStore | None
) -> CompiledGraph:
    """Return a copy of a compiled graph with the service's name for it, checkpointer and store."""
    return graph.copy({"name": name, "checkpointer": checkpointer, "store": store})


def _select_arguments(factory: GraphFactory, config: RunnableConfig, runtime: Any) -> list[Any]:
    """Return what a factory is called with: by annotation or name, a config or a runtime."""
    arguments: list[Any] = []
    for name, parameter in inspect.signature(factory).parameters.items():
        is_runtime = "Runtime" in str(parameter.annotation) or name == "runtime"
        arguments.append(runtime if is_runtime else config)
    return arguments
