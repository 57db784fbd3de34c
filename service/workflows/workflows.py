"""Everything the routes do with workflows, and what has to be open for it."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias
from uuid import uuid4

import httpx
from langgraph.types import Checkpointer
from pydantic import BaseModel, Field, JsonValue

from core.concurrency import FairSemaphore
from core.effects import Effects
from core.errors import Forbidden, InvalidDefinition, NotFound, NothingToResume, RunStopped
from core.postgres import Pool
from core.settings import WorkflowSettings
from core.tasks import Supervisor
from graphs.registry import STEP_GRAPHS
from graphs.workflow import compile_workflow
from graphs.workflow_agents import RegistryGraphs
from nodes.deps import Deps
from nodes.workflow.executors import build_executors
from nodes.workflow.recovery import Recovery, extract_records, retry, rollback_to_checkpoint, skip_failed_step
from service.auth.principal import Identity
from service.observability.metrics import ServiceMetrics
from service.runs.executor import RunExecutor
from service.runs.request import CompiledGraph, new_thread_id
from service.workflows.graphs import (
    WORKFLOW,
    Change,
    ChangeDetector,
    RunView,
    WorkflowGraphs,
    list_questions,
)
from service.workflows.worker import WorkflowWorker
from workflows.connections import open_connections
from workflows.faults import Fault
from workflows.http import open_http
from workflows.loader import load_request
from workflows.outline import build_outline, iter_steps
from workflows.ports import Engine, StepPorts
from workflows.progress import compute_progress
from workflows.requests import WorkflowRequest
from workflows.results import parse_step_id
from workflows.schema import Definition
from workflows.steps import AgentCall, Approval
from workflows.store import Run, WorkflowStore
from workflows.validation import build_error, read_input

RecoveryStrategy: TypeAlias = Literal["retry", "skip_failed_step", "rollback_to_checkpoint"]

# Between two looks at a watched run. A look reads the thread, so that the pause grows with what it takes.
MIN_PAUSE_SECONDS: Final = 0.25
MAX_PAUSE_SECONDS: Final = 5.0
_MAX_LOOKING_SHARE: Final = 0.1


class Checkpoint(BaseModel):
    """A checkpoint that a run can be rolled back to."""

    checkpoint_id: str
    created_at: datetime
    next: list[str] = Field(description="The steps that ran next; empty: the run had ended")
    done: int = Field(description="Working steps that were finished")


@dataclass(frozen=True, slots=True, kw_only=True)
class Workflows:
    """The workflows of a service.

    Attributes:
        store: The table of runs.
        graphs: Compiled definitions.
        worker: Makes runs continue.
        slots: The concurrency slots of working steps.
    """

    store: WorkflowStore
    graphs: WorkflowGraphs
    worker: WorkflowWorker
    slots: FairSemaphore

    def read_request(self, request: WorkflowRequest) -> Definition:
        """Return the definition that a request names or holds, whose agents this service has.

        Raises:
            NotFound: The library has no workflow of that name.
            InvalidDefinition: It has faults.
        """
        definition = load_request(request)
        message = f"must be one of {', '.join(sorted(STEP_GRAPHS))}"
        faults = [
            Fault(f"{entry.path}.graph", entry.step.id, "graph", message)
            for entry in iter_steps(definition)
            if isinstance(entry.step, AgentCall) and entry.step.graph not in STEP_GRAPHS
        ]
        if faults:
            raise build_error(faults)
        return definition

    def list_faults(
        self, request: WorkflowRequest, values: Mapping[str, JsonValue] | None
    ) -> list[dict[str, str]]:
        """Return everything that is wrong with a workflow and, if it is not None, its input; as JSON.

        Raises:
            NotFound: As :meth:`read_request`.
        """
        try:
            definition = self.read_request(request)
            if values is not None:
                read_input(definition, values)
        except InvalidDefinition as error:
            faults: list[dict[str, str]] = error.details["faults"]
            return faults
        return []

    async def start(
        self,
        identity: Identity,
        definition: Definition,
        values: Mapping[str, JsonValue],
        *,
        client_id: str = "",
        priority: int | None = None,
    ) -> Run:
        """Queue a run, or return the run that was started with the client's id before.

        Args:
            identity: Who starts it.
            definition: The workflow.
            values: Its input.
            client_id: The client's own id of the run; empty: none.
            priority: None: the definition's.

        Raises:
            InvalidDefinition: The input does not fit the definition.
        """
        if priority is not None:
            # The steps are scheduled by the priority of the definition.
            definition = definition.model_copy(update={"priority": priority})
        run, is_new = await self.store.add(
            id=new_thread_id(),
            tenant=identity.tenant,
            user_id=identity.user,
            client_id=client_id,
            name=definition.name,
            definition=definition.to_json(),
            input=read_input(definition, values),
            priority=definition.priority,
        )
        if is_new:
            self.worker.wake()
        return run

    async def get(self, identity: Identity, run_id: str) -> Run:
        """Return a run.

        Raises:
            NotFound: The tenant has no run with that id.
        """
        run = await self.store.get(identity.tenant, run_id)
        if run is None:
            raise NotFound(f"there is no workflow {run_id!r}", details={"id": run_id})
        return run

    async def view(self, identity: Identity, run_id: str) -> RunView:
        """Return a run with the progress of its steps; raises as :meth:`get`."""
        return await RunView.read(self.graphs, await self.get(identity, run_id))

    async def signal(self, identity: Identity, run_id: str, name: str, payload: JsonValue) -> Run:
        """Send a signal to a run.

        Raises:
            NotFound: The tenant has no run with that id.
            NothingToResume: The run has ended, or has too many signals that it did not wait for.
        """
        await self.get(identity, run_id)
        if not await self.store.add_signal(identity.tenant, run_id, name, payload):
            raise NothingToResume(f"workflow {run_id!r} has ended or has too many pending signals")
        self.worker.wake()
        return await self.get(identity, run_id)

    async def find_open_graph(self, identity: Identity, run_id: str) -> CompiledGraph | None:
        """Return the graph of a run; None: the run has ended, so that nobody need decide anything."""
        run = await self.store.get(identity.tenant, run_id)
        return None if run is None or run.is_final else self.graphs.compile(run.definition)

    async def decide(
        self, identity: Identity, run_id: str, interrupt_id: str, decision: JsonValue
    ) -> RunView:
        """Answer a question of a run, which continues to its end or its next wait.

        Raises:
            NothingToResume: It does not ask this question, or has ended.
        """
        graph = await self.find_open_graph(identity, run_id)
        questions = await list_questions(graph, run_id) if graph else []
        if interrupt_id not in {question["id"] for question in questions}:
            raise NothingToResume("the question was answered already, or the workflow has ended")
        run = await self.worker.answer(identity, run_id, interrupt_id, decision)
        if run is None:
            raise NotFound(f"workflow {run_id!r} was erased")
        return await RunView.read(self.graphs, run)

    async def recover(
        self, identity: Identity, run_id: str, strategy: RecoveryStrategy, checkpoint_id: str = ""
    ) -> Recovery:
        """Make a run continue.

        Raises:
            ThreadBusy: It is in progress.
            NothingToResume: It has not failed, or it had ended at the checkpoint.
            NotFound: There is no such checkpoint.
            Forbidden: It would skip a rejected approval, and the caller's scopes allow no decisions.
        """

        async def prepare(run: Run, graph: CompiledGraph) -> Recovery:
            config: Any = {"configurable": {"thread_id": run.id}}
            definition = self.graphs.parse(run.definition)
            if strategy == "rollback_to_checkpoint":
                return await rollback_to_checkpoint(graph, config, checkpoint_id)
            if strategy == "retry":
                return await retry(graph, config, definition)
            recovery = await skip_failed_step(graph, config, definition)
            _check_may_skip(identity, definition, recovery)
            return recovery

        return await self.worker.recover(identity, run_id, prepare)

    async def list_checkpoints(self, run: Run, *, limit: int) -> list[Checkpoint]:
        """Return the run's checkpoints, the latest first."""
        definition = self.graphs.parse(run.definition)
        outline = build_outline(definition)
        history = self.graphs.compile(run.definition).aget_state_history(
            {"configurable": {"thread_id": run.id}}, limit=limit
        )
        return [
            Checkpoint(
                checkpoint_id=snapshot.config["configurable"]["checkpoint_id"],
                created_at=datetime.fromisoformat(snapshot.created_at or ""),
                next=list(dict.fromkeys(snapshot.next)),
                done=compute_progress(definition, outline, extract_records(snapshot)).done,
            )
            async for snapshot in history
        ]

    async def watch(
        self, identity: Identity, run_id: str, *, since: float, is_stopping: Callable[[], bool]
    ) -> AsyncGenerator[Change | RunView, None]:
        """Yield the changes of a run and, when it has ended, the run itself.

        The changes come from its checkpoints and not from its stream, so that they are the same on every
        service and continue after a restart.

        Args:
            identity: The tenant's.
            run_id: The run.
            since: The time of the last change that the caller knows; 0: start with the present state.
            is_stopping: Tells whether the service stops, which must not wait until the run has ended.

        Raises:
            RunStopped: The service stops.
            NotFound: The tenant has no run with that id.
        """
        changes = ChangeDetector(since)
        while True:
            started = time.monotonic()
            view = await self.view(identity, run_id)
            for change in changes.detect(view):
                yield change
            if view.run.is_final:
                yield view
                return
            if is_stopping():
                raise RunStopped(
                    "the service is stopping and the workflow continues; connect again with Last-Event-ID",
                    retry_after=5,
                )
            pause = (time.monotonic() - started) / _MAX_LOOKING_SHARE
            await asyncio.sleep(min(MAX_PAUSE_SECONDS, max(MIN_PAUSE_SECONDS, pause)))


@asynccontextmanager
async def open_engine(
    settings: WorkflowSettings,
    *,
    databases: Mapping[str, str],
    deps: Deps,
    crm: httpx.AsyncClient,
    effects: Effects,
) -> AsyncIterator[Engine]:
    """Open the connections of working steps.

    Args:
        settings: Hosts, and how many steps run at once.
        databases: Databases that ``database_query`` steps read: connection strings by name.
        deps: What the graphs that are steps are built with.
        crm: The CRM's client.
        effects: Records effects.
    """
    async with AsyncExitStack() as stack:
        ports = StepPorts(
            http=await stack.enter_async_context(open_http(settings, crm)),
            sql=await stack.enter_async_context(
                open_connections(databases, max_bytes=settings.query_limit_bytes)
            ),
            graphs=RegistryGraphs(STEP_GRAPHS, deps),
            effects=effects,
        )
        slots = FairSemaphore(settings.max_concurrent_steps, settings.scheduling)
        yield Engine(executors=build_executors(ports), slots=slots)


@asynccontextmanager
async def open_workflows(
    settings: WorkflowSettings,
    pool: Pool,
    *,
    runs: RunExecutor,
    engine: Engine,
    checkpointer: Checkpointer,
    metrics: ServiceMetrics,
    tasks: Supervisor,
) -> AsyncIterator[Workflows]:
    """Run workflows until the context closes; the runs in progress must have been drained by then."""

    def compile_definition(definition: Definition) -> CompiledGraph:
        graph = compile_workflow(definition, engine, checkpointer)
        # Threads name the graph that started them, which is one name for all definitions.
        graph.name = WORKFLOW
        return graph

    graphs = WorkflowGraphs(compile_definition)
    store = WorkflowStore(pool, service=uuid4().hex, lease_seconds=settings.lease_seconds)
    worker = WorkflowWorker(store, graphs, runs, metrics, settings)
    async with tasks.supervise("workflow-worker", worker.run):
        try:
            yield Workflows(store=store, graphs=graphs, worker=worker, slots=engine.slots)
        finally:
            await worker.aclose()


def _check_may_skip(identity: Identity, definition: Definition, recovery: Recovery) -> None:
    """Raise if the recovery overrules a person's rejection and the caller may not decide."""
    outline = build_outline(definition)
    rejected = [key for key in recovery.steps if isinstance(outline[parse_step_id(key)].step, Approval)]
    if rejected and not identity.has_scope("approvals"):
        raise Forbidden(
            f"{rejected[0]} was rejected; skipping it is a decision, which needs the scope 'approvals'",
            details={"scope": "approvals", "scopes": sorted(identity.scopes)},
        )
