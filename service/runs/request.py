"""A run as it is asked for, and what comes of it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from uuid import uuid4

from langchain_core.callbacks import BaseCallbackManager
from langchain_core.runnables import RunnableConfig
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Durability, StreamMode, StreamPart

from core.context import Actor, Context
from service.auth.principal import Identity, build_actor
from service.runs.request import MultitaskStrategy, QueueName

# LangGraph's: a dict with "type" (the mode), "ns" and "data".
Part: TypeAlias = StreamPart[Any, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What to run.

    Attributes:
        graph: Compiled, with its checkpointer.
        input: As the graph's input schema says.
        identity: Who asks.
        config: Run name, metadata and ``configurable.thread_id``.
        fresh: Whether the thread was made for this run, so that there is no state to look at first.
        context: The run's parameters.
        durability: When checkpoints are written.
        modes: LangGraph's stream modes to listen to.
        subgraphs: Whether to listen to the graphs inside it too.
        multitask_strategy: What to do when the thread has a run in progress.
        begin: Called when the run is admitted, before its first step; gives the callbacks it reports to.
        key: Names the message or the request: what comes again with it is answered once. Empty: nothing does.
        repeated: Whether it came before: its run is gone on with, or its answer given again.
        run_id: Names the run in the records of what it does.
        lane: Whose places and time limit it has: workflows must not keep messages waiting.
    """

    graph: CompiledStateGraph[Any, Any, Any, Any]
    input: Any
    identity: Identity
    config: RunnableConfig
    fresh: bool
    context: Context
    durability: Durability
    modes: tuple[StreamMode, ...]
    subgraphs: bool = False
    multitask_strategy: MultitaskStrategy = "enqueue"
    begin: Callable[[], Awaitable[BaseCallbackManager]] | None = None
    key: str = ""
    repeated: bool = False
    run_id: str = field(default_factory=lambda: str(uuid4()))
    lane: QueueName = "runs"

    @property
    def actor(self) -> Actor:
        """On whose behalf the run works."""
        return build_actor(self.identity, thread_id=self.thread_id, run_id=self.run_id)

    @property
    def thread_id(self) -> str:
        """The thread the run is on."""
        return str(self.config["configurable"]["thread_id"])
