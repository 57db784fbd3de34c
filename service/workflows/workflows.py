"""Everything the routes do with workflows, and what has to be open for it."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from langgraph.types import Checkpointer, Command
from pydantic import BaseModel, Field, JsonValue

from core.concurrency import FairSemaphore
from core.errors import InvalidDefinition, NotFound, NothingToResume, RunStopped, ThreadBusy
from core.postgres import Pool
from core.settings import WorkflowSettings
from graphs.registry import STEP_GRAPHS
from graphs.workflow import compile_workflow
from nodes.workflow.recovery import Recovery, extract_records
from service.auth.principal import Identity
from service.observability.metrics import ServiceMetrics
from service.queue import TaskQueue
from service.runs.executor import RunExecutor
from service.runs.request import CompiledGraph, new_thread_id
from service.runs.threads import take_thread
from service.workflows.execution import WorkflowExecutor
from service.workflows.graphs import (
    WORKFLOW,
    Change,
    ChangeDetector,
    RunView,
    WorkflowGraphs,
    list_questions,
)
from service.workflows.recovery import RecoveryStrategy, describe_recovery, prepare_recovery
from service.workflows.worker import MAX_QUEUED, WorkflowWorker
from workflows.faults import Fault
from workflows.loader import load_request
from workflows.outline import build_outline, iter_steps
from workflows.ports import Engine
from workflows.progress import compute_progress
from workflows.requests import WorkflowRequest
from workflows.schema import Definition
from workflows.steps import AgentCall
from workflows.store import NewRun, Run, WorkflowStore, add_run, add_signal, recover_run
from workflows.validation import build_error, read_input

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
        runs: Executes their threads.
        executor: Executes them.
        worker: Makes them begin and continue.
        slots: The concurrency slots of working steps.
    """

    store: WorkflowStore
    graphs: WorkflowGraphs
    runs: RunExecutor
    executor: WorkflowExecutor
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
        new = NewRun(
            id=new_thread_id(),
            tenant=identity.tenant,
            user_id=identity.user,
            client_id=client_id,
            name=definition.name,
            definition=definition.to_json(),
            input=read_input(definition, values),
            priority=definition.priority,
        )
        async with self.store.pool.connection() as connection, connection.transaction():
            run, ahead = await add_run(connection, new, limit=MAX_QUEUED)
            if ahead is not None:
                await take_thread(connection, run.id, tenant=run.tenant, user=run.user_id)
            if ahead is not None and ahead < MAX_QUEUED:
                await self.worker.defer(run.id, turn=run.turn, connection=connection)
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
        async with self.store.pool.connection() as connection, connection.transaction():
            if not await add_signal(connection, identity.tenant, run_id, name, payload):
                raise NothingToResume(f"workflow {run_id!r} has ended or has too many pending signals")
            await self.worker.defer(run_id, connection=connection)
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
            ThreadBusy: It continues for another reason.
            ServiceError: The answer does not fit the question, which stays open.
        """
        graph = await self.find_open_graph(identity, run_id)
        questions = await list_questions(graph, run_id) if graph else []
        if interrupt_id not in {question["id"] for question in questions}:
            raise NothingToResume("the question was answered already, or the workflow has ended")
        run = await self.get(identity, run_id)
        answer = self.executor.answer(run, Command(resume={interrupt_id: decision}), identity)
        # The decision takes effect even if whoever made it disconnects.
        await asyncio.shield(asyncio.create_task(answer))
        return await self.view(identity, run_id)

    async def cancel(self, identity: Identity, run_id: str) -> Run:
        """Cancel a run; one in progress stops at its next step, on whichever replica it is.

        Raises:
            NotFound: The tenant has no run with that id.
            NothingToResume: The run has ended.
        """
        cancelled = await self.store.cancel(identity.tenant, run_id)
        if cancelled is None:
            known = await self.get(identity, run_id)
            raise NothingToResume(f"workflow {run_id!r} has ended: it {known.status}")
        await self.runs.cancel_thread(identity.tenant, run_id)
        return cancelled

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
        busy = ThreadBusy(f"workflow {run_id!r} is in progress: wait for it, or cancel it", retry_after=1)
        # Nobody else executes it meanwhile.
        async with self.runs.hold_idle_thread(identity, run_id):
            run = await self.get(identity, run_id)
            if not run.is_final and run.status != "waiting":
                raise busy
            graph, definition = self.graphs.compile(run.definition), self.graphs.parse(run.definition)
            config: Any = {"configurable": {"thread_id": run_id}}
            recovery = await prepare_recovery(
                identity, graph, definition, config, strategy=strategy, checkpoint_id=checkpoint_id
            )
            change = await describe_recovery(graph, run_id, recovery)
            async with self.store.pool.connection() as connection, connection.transaction():
                if not await recover_run(connection, run, change):
                    raise busy
                await self.worker.defer(run_id, connection=connection)
        return recovery

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


def schedule_workflows(
    settings: WorkflowSettings,
    pool: Pool,
    queue: TaskQueue,
    *,
    runs: RunExecutor,
    engine: Engine,
    checkpointer: Checkpointer,
    metrics: ServiceMetrics,
) -> Workflows:
    """Have workflows run as jobs of the queue."""

    def compile_definition(definition: Definition) -> CompiledGraph:
        graph = compile_workflow(definition, engine, checkpointer)
        # Threads name the graph that started them, which is one name for all definitions.
        graph.name = WORKFLOW
        return graph

    graphs = WorkflowGraphs(compile_definition)
    store = WorkflowStore(pool)
    executor = WorkflowExecutor(store, graphs, runs, metrics)
    worker = WorkflowWorker(store, executor, queue)
    worker.schedule(settings)
    return Workflows(
        store=store, graphs=graphs, runs=runs, executor=executor, worker=worker, slots=engine.slots
    )
