"""Describe a run (which graph, with which input, for whom, on which thread), and build it from HTTP input."""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias
from uuid import uuid4

from langchain_core.callbacks import BaseCallbackManager
from langchain_core.runnables import RunnableConfig
from langchain_core.utils.uuid import uuid7
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Durability, StreamMode, StreamPart
from pydantic import (
    JsonValue,
)

from core.context import Actor, Context
from core.errors import InvalidRequest
from graphs.spec import GraphSpec
from service.auth.principal import Identity, build_actor

CompiledGraph: TypeAlias = CompiledStateGraph[Any, Any, Any, Any]
# A part of LangGraph's stream: a dict with "type" (the stream mode), "ns" and "data".
RunPart: TypeAlias = StreamPart[Any, Any]
# LangGraph Platform's names: refuse the second run, let it wait, stop those before it, or undo them too.
MultitaskStrategy: TypeAlias = Literal["reject", "enqueue", "interrupt", "rollback"]
# Runs of each queue have concurrency slots of their own, so that workflows do not delay messages.
QueueName: TypeAlias = Literal["runs", "workflows"]
OnStart: TypeAlias = Callable[[], Awaitable[BaseCallbackManager]]
OnFinish: TypeAlias = Callable[[Mapping[str, Any]], Awaitable[None]]


class Hooks(NamedTuple):
    """The ``on_start`` and ``on_finish`` of a run."""

    on_start: OnStart
    on_finish: OnFinish | None


class BuildHooks(Protocol):
    """Builds the hooks of a run.

    Args:
        spec: The entry of its graph; ``None``: the graph is not ours, and nothing is done.
        identity: The caller.
        graph_input: Its input.
        thread_id: Its thread.
        key: Identifies the message or the request.
        on_start: Called last; returns the run's callbacks.
    """

    def __call__(
        self,
        spec: GraphSpec | None,
        identity: Identity,
        graph_input: Any,
        *,
        thread_id: str,
        key: str = "",
        on_start: OnStart,
    ) -> Hooks:
        """Return the hooks."""
        ...


# Keys in the metadata of a run's checkpoints: the graph that wrote them, for whom, which message or request
# the run is about, and the run.
GRAPH_KEY = "graph"
TENANT_KEY = "tenant"
USER_KEY = "user"
MESSAGE_KEY = "message_id"
# LangGraph's own name.
RUN_KEY = "run_id"

# Most super-steps of a run of a graph that is not of the registry.
DEFAULT_RECURSION_LIMIT = 1_000

# ASCII, because responses carry the id in a header.
_THREAD_ID = re.compile(r"[\w.:@+-]{1,200}", re.ASCII)
# The locale becomes part of a prompt, so only the form of a language tag is accepted (RFC 5646).
_LOCALE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What the Agent Server API lets a caller choose for a run; stored with it.

    Attributes:
        assistant_id: The assistant that was asked; empty: none.
        metadata: The caller's, on the run's row.
        webhook: The endpoint that is told of the run's end; empty: none is.
        interrupt_before: Nodes before which the run stops, or ``*``.
        interrupt_after: Nodes after which it stops, or ``*``.
        foreign_context: The context of a graph that is not of the registry; ``None``: the graph is.
        full_state: Whether ``values`` parts hold the whole state, and not only the graph's output, and are
            kept for followers.
        stream_mode: The API's names of the stream modes that were asked for.
        may_create_thread: Whether the thread is created where there is none.
        detached: Whether the run goes on when its caller leaves.
        delete_thread: Whether the thread is erased when the run has ended.
    """

    assistant_id: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    webhook: str = ""
    interrupt_before: tuple[str, ...] | Literal["*"] = ()
    interrupt_after: tuple[str, ...] | Literal["*"] = ()
    foreign_context: Mapping[str, Any] | None = None
    full_state: bool = False
    stream_mode: tuple[str, ...] = ()
    may_create_thread: bool = True
    detached: bool = False
    delete_thread: bool = False


NO_OPTIONS = RunOptions()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """A run to execute.

    Attributes:
        graph: Compiled, with its checkpointer.
        input: An input model begins a turn, a ``Command`` answers interrupts or changes the state of a thread
            that waits for nothing, ``None`` continues from the last checkpoint.
        identity: The caller.
        config: Run name, metadata and ``configurable.thread_id``.
        fresh: Whether the thread was created for this run, so that it has no state to check.
        context: The run's parameters.
        durability: When checkpoints are written.
        modes: LangGraph's stream modes to listen to.
        subgraphs: Whether to stream the parts of subgraphs too.
        multitask_strategy: What to do when the thread has a run in progress.
        on_start: Called when the run is admitted, before its first step; returns the run's callbacks.
        on_finish: Called with the output when the run has reached its end, before the thread is released.
            Not called for a run that stops at an interrupt, nor for the replay of an earlier run.
        key: Identifies the message or the request, so that a repeated one is answered once. Empty: repeats
            are not recognised.
        repeated: Whether the key was used before. The earlier run is then continued or its answer replayed.
        run_id: The run's row, also in the audit trail and the record of effects.
        is_stored: Whether the row was inserted before, so that the run may have been begun elsewhere.
        is_recoverable: Whether any replica can execute the run from its row.
        queue: Whose concurrency slots and time limit apply.
        options: What a caller of the Agent Server API may ask for beyond that.
    """

    graph: CompiledGraph
    input: Any
    identity: Identity
    config: RunnableConfig
    fresh: bool
    context: Context
    durability: Durability
    modes: tuple[StreamMode, ...]
    subgraphs: bool = False
    multitask_strategy: MultitaskStrategy = "enqueue"
    on_start: OnStart | None = None
    on_finish: OnFinish | None = None
    key: str = ""
    repeated: bool = False
    run_id: str = field(default_factory=lambda: str(uuid7()))
    is_stored: bool = False
    is_recoverable: bool = True
    queue: QueueName = "runs"
    options: RunOptions = NO_OPTIONS

    @property
    def graph_context(self) -> Any:
        """What the graph's nodes get as their context."""
        return self.context if self.options.foreign_context is None else self.options.foreign_context

    @property
    def latest_config(self) -> RunnableConfig:
        """The config without the checkpoint that the run begins at: it means the thread's latest one."""
        configurable = self.config["configurable"]
        if configurable.keys() == {"thread_id"}:
            return self.config
        return {**self.config, "configurable": {"thread_id": self.thread_id}}

    @property
    def actor(self) -> Actor:
        """On whose behalf the run works."""
        return build_actor(self.identity, thread_id=self.thread_id, run_id=self.run_id)

    @property
    def thread_id(self) -> str:
        """The thread the run is on."""
        return str(self.config["configurable"]["thread_id"])


def build_run_request(
    graph: CompiledGraph,
    spec: GraphSpec | None,
    graph_input: Any,
    *,
    identity: Identity,
    thread_id: str | None,
    fresh: bool | None = None,
    locale: str | None = None,
    model: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    tags: Sequence[str] = (),
    modes: tuple[StreamMode, ...] = ("updates", "values"),
    subgraphs: bool = False,
    multitask_strategy: MultitaskStrategy = "enqueue",
    on_start: OnStart | None = None,
    on_finish: OnFinish | None = None,
    key: str = "",
    repeated: bool = False,
    run_id: str = "",
    is_stored: bool = False,
    is_from_person: bool = False,
    checkpoint: Mapping[str, Any] | None = None,
    durability: Durability | None = None,
    recursion_limit: int | None = None,
    options: RunOptions | None = None,
) -> RunRequest:
    """Build the request for a run of a registered graph.

    Args:
        graph: The compiled graph.
        spec: Its entry in the registry; ``None``: it has none.
        graph_input: See :func:`build_graph_input`.
        identity: The caller.
        thread_id: The thread to continue; ``None``: a new one.
        fresh: Whether the thread is known to be new; ``None``: it is new when no id was given.
        locale: Language to answer in.
        model: ``provider:model`` to use instead of the service's.
        metadata: Stored with the run's checkpoints, beside the graph's name, the tenant and the user.
        tags: The caller's, for traces.
        modes: LangGraph's stream modes to listen to.
        subgraphs: Whether to stream the parts of subgraphs too.
        multitask_strategy: What to do when the thread is busy. A repeated request always waits for its
            first run.
        on_start: Returns the run's callbacks once it is admitted.
        on_finish: Called with the output of a run that has reached its end.
        key: Identifies the message or the request.
        repeated: Whether the key was used before.
        run_id: The run's id; empty: a new one.
        is_stored: Whether its row was inserted before.
        is_from_person: Whether a person of the company wrote the input's message.
        checkpoint: ``checkpoint_id`` (and ``checkpoint_ns``) to continue from; ``None``: the latest.
        durability: When checkpoints are written; ``None``: as the graph's entry says.
        recursion_limit: Fewer super-steps than the graph's entry allows; ``None``: as many.
        options: See :class:`RunOptions`.

    Raises:
        InvalidRequest: The thread id or the locale is malformed.
    """
    if locale is not None and not _LOCALE.fullmatch(locale):
        raise InvalidRequest(
            "locale must be a language tag such as en or pt-BR", details={"locale": locale[:50]}
        )
    run_id, name = run_id or new_run_id(), spec.name if spec else str(graph.name)
    limit = spec.recursion_limit if spec else recursion_limit or DEFAULT_RECURSION_LIMIT
    return RunRequest(
        graph=graph,
        input=graph_input,
        identity=identity,
        config={
            "configurable": {
                "thread_id": check_thread_id(thread_id) if thread_id else new_thread_id(),
                **(checkpoint or {}),
            },
            "metadata": _build_metadata(metadata or {}, name, identity, key, run_id),
            "recursion_limit": min(limit, recursion_limit or limit),
            "tags": list(tags),
            "run_name": name,
        },
        fresh=thread_id is None if fresh is None else fresh,
        context=Context(
            tenant=identity.tenant,
            user=identity.user,
            locale=locale,
            model=model,
            is_from_person=is_from_person,
        ),
        durability=durability or (spec.durability if spec else "async"),
        modes=modes,
        subgraphs=subgraphs,
        multitask_strategy="enqueue" if repeated else multitask_strategy,
        on_start=on_start,
        on_finish=on_finish,
        key=key,
        repeated=repeated,
        run_id=run_id,
        is_stored=is_stored,
        options=options or NO_OPTIONS,
    )


def _build_metadata(
    metadata: Mapping[str, Any], graph: str, identity: Identity, key: str, run_id: str
) -> dict[str, Any]:
    # Only the service says which message or request a run is about.
    own = {name: value for name, value in metadata.items() if name != MESSAGE_KEY}
    message = {MESSAGE_KEY: key} if key else {}
    return {
        **own,
        **message,
        GRAPH_KEY: graph,
        TENANT_KEY: identity.tenant,
        USER_KEY: identity.user,
        RUN_KEY: run_id,
    }


def build_resume_call(graph: str, thread_id: str) -> dict[str, JsonValue]:
    """Return the HTTP request that continues a thread whose run was stopped, from its last checkpoint."""
    return {
        "method": "POST",
        "path": f"/{graph}/invoke",
        "body": {"input": {"resume": None}, "config": {"configurable": {"thread_id": thread_id}}},
    }


def build_wait_call(run_id: str) -> dict[str, JsonValue]:
    """Return the HTTP request that waits for a run that another replica executes, and gets its answer."""
    return {"method": "GET", "path": f"/v1/runs/{run_id}/wait", "body": None}


def new_thread_id() -> str:
    """Return an unused thread id."""
    return str(uuid4())


def new_run_id() -> str:
    """Return the id of a new run; ids are time-ordered (UUID version 7)."""
    return str(uuid7())


def check_thread_id(value: str) -> str:
    """Return the thread id unchanged if it is well formed.

    Raises:
        InvalidRequest: It is too long, or has others than ASCII letters, digits and ``_.:@+-``.
    """
    if not _THREAD_ID.fullmatch(value):
        raise InvalidRequest(
            "a thread_id (session_id) has 1 to 200 ASCII letters, digits, or any of _ . : @ + -",
            details={"thread_id": value[:200]},
        )
    return value
