"""Commands of the streaming protocol: begin a run, answer its questions, show the tree of its graphs."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias, cast

from langgraph.types import Interrupt, StateSnapshot, StreamMode
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from core.errors import Forbidden, InvalidRequest, NotFound, ServiceError
from core.logging import get_logger
from service.agent_server.run_body import CommandBody, ConfigBody, RunBody, SendBody, drop_nulls
from service.agent_server.run_builder import RunBuilder
from service.agent_server.state import load_snapshot
from service.auth.principal import Identity
from service.errors import invalid_request, to_service_error
from service.runs.executor import RunExecutor
from service.runs.graphs import GraphCatalogue
from service.runs.request import MultitaskStrategy
from service.runs.store import RunStore
from service.runs.threads import ThreadOwners

log = get_logger(__name__)

Reply: TypeAlias = dict[str, Any]
Handler: TypeAlias = Callable[[Identity, str, Mapping[str, Any]], Awaitable[Reply]]

# What whoever follows the thread may subscribe to.
_MODES: Final = ("values", "updates", "messages", "custom", "tools", "tasks", "checkpoints")
_CALLERS_FAULT: Final = range(400, 500)
_NOT_SUPPORTED: Final = frozenset({"input.inject", "state.get", "state.listCheckpoints", "state.fork"})


class CommandRefused(Exception):
    """Raise when a command is answered with an error of the protocol.

    Args:
        code: The protocol's code.
        message: What to do.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class CommandEnvelope(BaseModel):
    """A command as clients send it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: int = Field(ge=0)
    method: str = Field(max_length=100)
    params: dict[str, Any] = Field(default_factory=dict)


class ThreadRunBody(RunBody):
    """A run that is begun with a command: its thread's followers choose what they want to see."""

    @property
    def modes(self) -> tuple[StreamMode, ...]:
        """LangGraph's stream modes."""
        # LangGraph's annotation leaves `tools` out.
        return cast("tuple[StreamMode, ...]", _MODES)


class _Params(BaseModel):
    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, value: Any) -> Any:
        return drop_nulls(value)


class RunStart(_Params):
    """The parameters of ``run.start``."""

    assistant_id: str = Field(max_length=200)
    input: JsonValue = None
    config: ConfigBody = Field(default_factory=ConfigBody)
    metadata: dict[str, JsonValue] = Field(default_factory=dict)
    multitask_strategy: MultitaskStrategy = "enqueue"
    langsmith_tracer: None = Field(None, description="Tracing is a setting of the service")

    @model_validator(mode="before")
    @classmethod
    def _rename(cls, value: Any) -> Any:
        """Take the name that older clients give the strategy, and send beside the newer one."""
        if not isinstance(value, dict) or "multitaskStrategy" not in value:
            return value
        known = {name: each for name, each in value.items() if name != "multitaskStrategy"}
        return {"multitask_strategy": value["multitaskStrategy"], **known}


class Answer(_Params):
    """An answer to a question."""

    interrupt_id: str = Field(max_length=200)
    response: JsonValue = None
    namespace: list[str] = Field(default_factory=list, description="The id is enough; not looked at")


class InputRespond(_Params):
    """The parameters of ``input.respond``: one answer, or several in ``responses``."""

    interrupt_id: str | None = Field(None, max_length=200)
    response: JsonValue = None
    namespace: list[str] = Field(default_factory=list)
    responses: list[Answer] = Field(default_factory=list, max_length=1_000)
    update: dict[str, Any] | None = None
    goto: str | SendBody | list[str | SendBody] | None = None
    config: ConfigBody = Field(default_factory=ConfigBody)
    metadata: dict[str, JsonValue] = Field(default_factory=dict)
    # Answers to questions that are not open are refused in any case.
    strict_resume: bool = False

    @property
    def answers(self) -> dict[str, JsonValue]:
        """The answers by question."""
        if self.interrupt_id is not None:
            return {self.interrupt_id: self.response}
        return {each.interrupt_id: each.response for each in self.responses}


class ThreadCommands:
    """Carries out commands.

    Args:
        builder: Builds runs.
        runs: Executes them.
        store: The table of runs.
        graphs: The graphs by name.
        owners: Authorizes access to threads.
    """

    def __init__(
        self,
        builder: RunBuilder,
        runs: RunExecutor,
        *,
        store: RunStore,
        graphs: GraphCatalogue,
        owners: ThreadOwners,
    ) -> None:
        self._builder = builder
        self._runs = runs
        self._store = store
        self._graphs = graphs
        self._owners = owners
        self._handlers: Mapping[str, Handler] = {
            "run.start": self._start_run,
            "input.respond": self._respond,
            "agent.getTree": self._get_tree,
        }

    async def execute(self, identity: Identity, thread_id: str, command: CommandEnvelope) -> Reply:
        """Carry out a command and return the answer, an error included."""
        # What is streamed from now on comes after the command.
        meta = {"applied_through_seq": time.time_ns() // 1_000}
        try:
            result = await self._find_handler(command.method)(identity, thread_id, command.params)
        except CommandRefused as refused:
            return build_error(command.id, refused.code, refused.message)
        except Exception as error:  # noqa: BLE001 - to_service_error() types it, and the answer is where errors go
            described = _type_error(error)
            return build_error(command.id, _choose_code(described), described.message)
        return {"type": "success", "id": command.id, "result": result, "meta": meta}

    def _find_handler(self, method: str) -> Handler:
        if handler := self._handlers.get(method):
            return handler
        if method in _NOT_SUPPORTED:
            raise CommandRefused("not_supported", f"{method}: use the routes of threads and their state")
        if method.startswith("subscription."):
            raise CommandRefused("not_supported", f"{method}: use POST stream/events, or a WebSocket there")
        raise CommandRefused("unknown_command", f"there is no command {method!r}")

    async def _start_run(self, identity: Identity, thread_id: str, params: Mapping[str, Any]) -> Reply:
        start = RunStart.model_validate(params)
        fields: dict[str, Any] = {"input": start.input}
        is_fork = "checkpoint_id" in start.config.configurable
        if start.input is not None and not is_fork and await self._list_questions(identity, thread_id):
            # What a client says to a thread that asks is the answer.
            fields = {"command": CommandBody(resume=start.input)}
        body = ThreadRunBody(
            assistant_id=start.assistant_id,
            config=start.config,
            metadata=start.metadata,
            multitask_strategy=start.multitask_strategy,
            if_not_exists="create",
            stream_subgraphs=True,
            **fields,
        )
        return await self._start(identity, thread_id, body)

    async def _respond(self, identity: Identity, thread_id: str, params: Mapping[str, Any]) -> Reply:
        respond = InputRespond.model_validate(params)
        if not respond.answers or (respond.interrupt_id is not None and respond.responses):
            raise InvalidRequest("params: give interrupt_id and response, or responses")
        pending = {each.id for each in await self._list_questions(identity, thread_id)}
        if unknown := sorted(respond.answers.keys() - pending):
            raise CommandRefused(
                "no_such_interrupt",
                f"the thread does not wait with {unknown[0][:100]!r}; it waits with: "
                f"{', '.join(sorted(pending)) or 'nothing'}",
            )
        body = ThreadRunBody(
            assistant_id=await self._find_assistant(identity, thread_id),
            command=CommandBody(resume=respond.answers, update=respond.update, goto=respond.goto),
            config=respond.config,
            metadata=respond.metadata,
            stream_subgraphs=True,
        )
        return await self._start(identity, thread_id, body)

    async def _start(self, identity: Identity, thread_id: str, body: RunBody) -> Reply:
        request = await self._builder.build(identity, body, thread_id=thread_id)
        await self._runs.start(request)
        return {"run_id": request.run_id}

    async def _get_tree(self, identity: Identity, thread_id: str, params: Mapping[str, Any]) -> Reply:
        owner = await self._owners.get_owner(identity, thread_id)
        runs = await self._store.list_begun(identity.tenant, thread_id)
        running = [run for run in runs if not run.ended_at] or runs[-1:]
        run_id = params.get("run_id") or (running[0].id if running else None)
        row = await self._store.get(str(run_id)) if run_id in {run.id for run in runs} else None
        if row is None:
            raise CommandRefused("no_such_run", f"the thread has no run {run_id!r} that has begun")
        snapshot = await load_snapshot(self._graphs, owner.graph, thread_id)
        status = {"running": "running", "success": "completed", "interrupted": "interrupted"}
        root = {"namespace": [], "status": status.get(row.status, "failed"), "graph_name": row.graph}
        return {"tree": {**root, "children": _list_children(snapshot)}}

    async def _list_questions(self, identity: Identity, thread_id: str) -> Sequence[Interrupt]:
        owner = await self._owners.find_owner(thread_id)
        if owner is None or owner.tenant != identity.tenant:
            # There is none yet, or the run is refused.
            return ()
        snapshot = await load_snapshot(self._graphs, owner.graph, thread_id)
        return snapshot.interrupts if snapshot else ()

    async def _find_assistant(self, identity: Identity, thread_id: str) -> str:
        """Return what the thread's latest run was asked of: an assistant, or a graph."""
        runs = await self._store.list_begun(identity.tenant, thread_id)
        row = await self._store.get(runs[-1].id) if runs else None
        if row is None:
            raise CommandRefused("no_such_run", "nothing has run on the thread")
        return row.assistant_id or row.graph


def build_error(command_id: int | None, code: str, message: str) -> Reply:
    """Return the protocol's error; without an id, it is about no command that could be read."""
    return {"type": "error", "id": command_id, "error": code, "message": message}


def _type_error(error: Exception) -> ServiceError:
    if isinstance(error, ValidationError):
        return invalid_request(error.errors(include_url=False, include_context=False))
    described = to_service_error(error)
    log.info("command_failed", error=described.code, reason=described.message)
    return described


def _choose_code(error: ServiceError) -> str:
    match error:
        case Forbidden():
            return "permission_denied"
        case NotFound():
            return "no_such_run"
        case _:
            return "invalid_argument" if error.status in _CALLERS_FAULT else "unknown_error"


def _list_children(snapshot: StateSnapshot | None) -> list[Reply]:
    """Return the subgraphs that the latest checkpoint is within."""
    children = []
    for task in snapshot.tasks if snapshot else ():
        state = task.state
        found = state.config if isinstance(state, StateSnapshot) else state
        if found is None:
            continue
        status = "interrupted" if task.interrupts else "failed" if task.error else "running"
        namespace = str(found.get("configurable", {}).get("checkpoint_ns", "")).split("|")
        children.append({"namespace": namespace, "status": status, "graph_name": task.name})
    return children
