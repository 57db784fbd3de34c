"""The events of LangChain's callbacks among the parts of a run, for callers who ask for ``events``."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, Final, Literal, TypedDict, cast
from uuid import UUID

from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.schema import StreamEvent

from service.encoding import to_plain
from service.runs.request import CompiledGraph, RunPart

# LangGraph's tag of what is no step of the graph.
_HIDDEN: Final = "langsmith:hidden"


class EventPart(TypedDict):
    """An event of ``astream_events(version="v2")``; as JSON, because a graph goes on with what is in it."""

    type: Literal["events"]
    ns: tuple[()]
    data: dict[str, Any]


class _PartRunnable(Runnable[Any, RunPart]):
    """A graph whose stream is that of its parts; ``astream_events`` would ask it for tuples."""

    def __init__(self, graph: CompiledGraph) -> None:
        self._graph = graph

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> RunPart:  # noqa: A002
        """Refuse: the service is asynchronous."""
        raise NotImplementedError("the service is asynchronous; use astream_events")

    async def astream(
        self,
        input: Any,  # noqa: A002 - LangChain's name
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[RunPart]:
        """Yield the parts."""
        async for part in self._graph.astream(input, config, version="v2", **kwargs):
            yield part


async def stream_with_events(
    graph: CompiledGraph, graph_input: Any, config: RunnableConfig, run_id: str, **arguments: Any
) -> AsyncGenerator[RunPart, None]:
    """Execute a graph and yield its parts, with the events of all that it calls as parts of their own.

    The chunks of the graph itself are its parts, and no events.

    Args:
        graph: The graph.
        graph_input: Its input.
        config: The run's.
        run_id: The run, which is that of the graph's own events too.
        arguments: For ``astream``.
    """
    root: RunnableConfig = {**config, "run_id": UUID(run_id)}
    stream = _PartRunnable(graph).astream_events(graph_input, root, version="v2", **arguments)
    async with aclosing(cast("AsyncGenerator[StreamEvent, None]", stream)) as events:
        async for event in events:
            if event["event"] == "on_chain_stream" and event["run_id"] == run_id:
                yield event["data"]["chunk"]
            elif _HIDDEN not in event.get("tags", ()):
                # LangGraph's annotation knows its own modes alone.
                yield cast("RunPart", EventPart(type="events", ns=(), data=to_plain(event)))
