"""The worker that makes workflows continue: new runs, runs that are due, and runs whose service died.

A lease in the table assigns a run to one service, which extends the lease while it executes the run. When a
lease expires, any service on the database continues the run from its last checkpoint.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from langgraph.types import Command, Interrupt, StateSnapshot
from pydantic import JsonValue

from core.errors import (
    DatabaseUnavailable,
    RunStopped,
    ServiceError,
    ThreadBusy,
    TooManyRuns,
    WorkflowFailed,
)
from core.logging import get_logger
from core.postgres import DATABASE_UNAVAILABLE
from core.settings import WorkflowSettings
from core.tasks import background, periodic
from nodes.workflow.executors import WaitAnswer
from nodes.workflow.recovery import Recovery
from service.auth.principal import Identity
from service.errors import error_body, to_service_error
from service.observability.metrics import ServiceMetrics
from service.runs.executor import RunExecutor
from service.runs.request import CompiledGraph
from service.workflows.graphs import WORKFLOW, WorkflowGraphs, build_request
from workflows.store import FINAL_STATUSES, FinalStatus, Run, WorkflowStore

log = get_logger(__name__)

# A run that is in progress on that many services that died is not given to another one.
MAX_EXPIRED_LEASES: Final = 10
PAUSE_SECONDS: Final = 2.0
# How long an answer waits for a run that continues for another reason.
ANSWER_SECONDS: Final = 10.0
POLL_SECONDS: Final = 1.0
_EXTENSIONS_PER_LEASE: Final = 3
# There is no input to give: the run waits, or has ended. None is an input: it resumes the run.
_NO_INPUT: Final = object()


class WorkflowWorker:
    """Executes due runs, up to the number that the settings allow at once.

    Args:
        store: The table of runs.
        graphs: Their compiled definitions.
        runs: Executes them.
        metrics: Where workflows are counted.
        settings: Limits, and how long a lease is.
    """

    def __init__(
        self,
        store: WorkflowStore,
        graphs: WorkflowGraphs,
        runs: RunExecutor,
        metrics: ServiceMetrics,
        settings: WorkflowSettings,
    ) -> None:
        self._store = store
        self._metrics = metrics
        self._graphs = graphs
        self._runs = runs
        self._settings = settings
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()
        self._listeners: dict[str, set[asyncio.Event]] = {}

    @property
    def active(self) -> int:
        """Runs that this service is executing."""
        return len(self._tasks)

    def wake(self) -> None:
        """Look for due runs now instead of after the pause."""
        self._wake.set()

    async def run(self) -> None:
        """Claim due runs and extend leases until cancelled."""
        extension = periodic(
            "workflow-leases",
            self._extend_leases,
            seconds=self._settings.lease_seconds / _EXTENSIONS_PER_LEASE,
            jitter=0,
        )
        async with background(extension, "workflow-leases"):
            await periodic(
                "workflow-claims",
                self._claim_all,
                seconds=self._settings.sweep_seconds,
                at_once=True,
                wake=self._wake,
            )

    async def aclose(self) -> None:
        """Wait until the runs in progress, which were asked to stop, are released."""
        if self._tasks:
            await asyncio.wait(set(self._tasks.values()), timeout=PAUSE_SECONDS)

    async def answer(
        self, identity: Identity, run_id: str, interrupt_id: str, decision: JsonValue
    ) -> Run | None:
        """Answer a question of a run, and execute the run to its end or its next wait.

        Returns:
            The run after that; None: it was erased meanwhile.

        Raises:
            ThreadBusy: It continues for another reason, and did not stop within :data:`ANSWER_SECONDS`.
            ServiceError: The answer does not fit the question, which stays open.
        """
        deadline = time.monotonic() + ANSWER_SECONDS
        while (run := await self._store.claim_one(identity.tenant, run_id, {"waiting"})) is None:
            if time.monotonic() > deadline:
                raise ThreadBusy(f"workflow {run_id!r} does not wait for a decision just now", retry_after=1)
            await self._wait_for_change(run_id)
        command: Command[Any] = Command(resume={interrupt_id: decision})
        task = asyncio.create_task(self._advance(run, command, decided_by=identity))
        self._track(run.id, task)
        # The decision takes effect even if whoever made it disconnects.
        await asyncio.shield(task)
        return await self._store.get(identity.tenant, run_id)

    async def recover(
        self, identity: Identity, run_id: str, prepare: Callable[[Run, CompiledGraph], Awaitable[Recovery]]
    ) -> Recovery:
        """Make a run that has ended or waits continue as a recovery says.

        Args:
            identity: The tenant's.
            run_id: The run.
            prepare: Returns the recovery, while no other service can execute the run.

        Raises:
            ThreadBusy: The run is in progress.
            ServiceError: It cannot be recovered like this; it stays as it was.
        """
        before = await self._store.get(identity.tenant, run_id)
        run = await self._store.claim_one(identity.tenant, run_id, FINAL_STATUSES | {"waiting"})
        if before is None or run is None:
            raise ThreadBusy(f"workflow {run_id!r} is in progress: wait for it, or cancel it", retry_after=1)
        try:
            recovery = await prepare(run, self._graphs.compile(run.definition))
        except BaseException:
            await asyncio.shield(self._store.restore(before))
            raise
        self._track(run.id, asyncio.create_task(self._execute(run, recovery.input)))
        return recovery

    async def wait_until_settled(self, tenant: str, run_id: str, *, seconds: float) -> Run | None:
        """Return a run when it has ended or waits, or as it is when the seconds are over."""
        deadline = time.monotonic() + seconds
        while True:
            run = await self._store.get(tenant, run_id)
            if run is None or run.is_final or run.status == "waiting" or time.monotonic() >= deadline:
                return run
            await self._wait_for_change(run_id, min(POLL_SECONDS, max(0.01, deadline - time.monotonic())))

    async def _wait_for_change(self, run_id: str, seconds: float = POLL_SECONDS) -> None:
        """Wait until the run stops here, or for some seconds, as another service may execute it."""
        event = asyncio.Event()
        self._listeners.setdefault(run_id, set()).add(event)
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            pass
        finally:
            self._listeners[run_id].discard(event)
            if not self._listeners[run_id]:
                del self._listeners[run_id]

    async def _claim_all(self) -> None:
        """Claim runs until none is due, or no more may be in progress at once."""
        while await self._claim():
            pass

    async def _claim(self) -> Sequence[Run]:
        free = self._settings.max_concurrent - len(self._tasks)
        if free <= 0 or self._runs.is_stopping:
            return ()
        claimed = await self._store.claim(limit=free)
        for run in claimed:
            self._track(run.id, asyncio.create_task(self._execute(run)))
        return claimed

    async def _extend_leases(self) -> None:
        # If the database is unavailable, the runs end by themselves: they cannot write checkpoints either.
        active = list(self._tasks)
        ours = await self._store.extend_leases(active) if active else {}
        for run_id in active:
            if ours.get(run_id, True):
                # Another service has the run, or it is to be cancelled.
                self._runs.stop(run_id)

    def _track(self, run_id: str, task: asyncio.Task[None]) -> None:
        self._tasks[run_id] = task
        task.add_done_callback(lambda _: self._untrack(run_id, task))

    def _untrack(self, run_id: str, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            # Retrieves the exception: whoever gave an answer may have disconnected and not await the task.
            task.exception()
        if self._tasks.get(run_id) is task:
            del self._tasks[run_id]
        for event in self._listeners.get(run_id, ()):
            event.set()
        self.wake()

    async def _execute(self, run: Run, command: Command[Any] | None = None) -> None:
        """Execute a run to its end or its next wait, without raising."""
        try:
            await self._advance(run, command)
        except Exception as error:  # noqa: BLE001 - describe() types and logs it; the lease expires
            log.warning("workflow_not_advanced", workflow_id=run.id, reason=to_service_error(error).message)

    async def _advance(
        self, run: Run, command: Command[Any] | None = None, *, decided_by: Identity | None = None
    ) -> None:
        """Execute a claimed run to its end or its next wait.

        Args:
            run: The run.
            command: An answer or a recovery; None: what is due for the run.
            decided_by: Who gave the answer.

        Raises:
            ServiceError: The answer was not accepted.
        """
        if run.cancel_requested:
            await self._end(run.id, "cancelled", None)
            return
        try:
            rejection = await self._run_graph(run, command, decided_by)
        except DATABASE_UNAVAILABLE as error:
            raise to_service_error(error) from error
        except ServiceError as error:
            await self._record_error(run, error)
            # It is unknown whether the answer was accepted: whoever gave it has to give it again.
            rejection = error if command and isinstance(error, RunStopped | DatabaseUnavailable) else None
        if rejection:
            raise rejection

    async def _run_graph(
        self, run: Run, command: Command[Any] | None, decided_by: Identity | None
    ) -> ServiceError | None:
        """Run the graph and record the outcome. Return why an answer was rejected, if it was."""
        if run.expired_leases > MAX_EXPIRED_LEASES:
            raise WorkflowFailed(
                f"{run.expired_leases} services died while they executed it; recover it when that is fixed"
            )
        graph = self._graphs.compile(run.definition)
        config = build_request(graph, run).config
        rejection = await self._send_command(graph, run, command, decided_by) if command else None
        if run.is_new:
            await self._stream(graph, run, {"input": run.input})
        state = await graph.aget_state(config)
        if run.was_interrupted and state.interrupts:
            # Steps beside an open question may have been in progress, also inside a branch with a question.
            await self._stream(graph, run, None, skip_checks=True)
            state = await graph.aget_state(config)
        # A signal may have come before the run waits for it: then that wait ends at once.
        while (graph_input := await self._find_input(run, state)) is not _NO_INPUT:
            await self._stream(graph, run, graph_input)
            state = await graph.aget_state(config)
        await self._record_outcome(run, state)
        return rejection

    async def _send_command(
        self, graph: CompiledGraph, run: Run, command: Command[Any], decided_by: Identity | None
    ) -> ServiceError | None:
        """Run the graph with an answer or a recovery. Return why it was rejected, if it was."""
        while True:
            try:
                await self._stream(graph, run, command, decided_by)
            except TooManyRuns as error:
                if decided_by:
                    return error
                # The recovery was accepted, and nobody would request it again.
                await asyncio.sleep(PAUSE_SECONDS)
            except ServiceError as error:
                if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                    raise
                return error
            else:
                return None

    async def _stream(
        self,
        graph: CompiledGraph,
        run: Run,
        graph_input: Any,
        decided_by: Identity | None = None,
        *,
        skip_checks: bool = False,
    ) -> None:
        request = build_request(graph, run, graph_input, decided_by=decided_by, skip_checks=skip_checks)
        await self._runs.run_to_end(request)

    async def _find_input(self, run: Run, state: StateSnapshot) -> Any:
        """Return what to run the graph with: its input, answers, None to resume, or ``_NO_INPUT``."""
        if state.created_at is None:
            return {"input": run.input}
        if state.interrupts:
            answers = {pending.id: await self._find_answer(run, pending) for pending in state.interrupts}
            answers = {interrupt_id: answer for interrupt_id, answer in answers.items() if answer}
            return Command(resume=answers) if answers else _NO_INPUT
        # ``next`` would not do: it leaves out tasks that have written but died before the next checkpoint.
        return None if state.tasks else _NO_INPUT

    async def _find_answer(self, run: Run, pending: Interrupt) -> dict[str, JsonValue] | None:
        """Return the answer that ends a wait; None: it goes on, or a person has to answer."""
        waiting = pending.value if isinstance(pending.value, Mapping) else {}
        if waiting.get("kind") == "signal":
            signal = await self._store.take_signal(run.id, pending.id, str(waiting["signal"]))
            if signal:
                return WaitAnswer(kind="signal", payload=signal.payload).model_dump()
        if waiting.get("kind") in {"signal", "timer"} and 0 < waiting["due"] <= time.time():
            return WaitAnswer(kind="due").model_dump()
        return None

    async def _record_outcome(self, run: Run, state: StateSnapshot) -> None:
        if state.interrupts:
            values = [pending.value for pending in state.interrupts if isinstance(pending.value, dict)]
            dues = [value["due"] for value in values if value.get("due")]
            await self._store.mark_waiting(run.id, wake_at=min(dues, default=None))
            self._metrics.count_run(WORKFLOW, "waiting")
        elif state.values.get("status") == "succeeded":
            await self._end(run.id, "succeeded", None)
        else:
            error = WorkflowFailed(
                state.values.get("error") or "a step failed",
                details={"failed": state.values.get("failed", [])},
            )
            await self._end(run.id, "failed", error_body(error))

    async def _end(self, run_id: str, status: FinalStatus, error: dict[str, JsonValue] | None) -> None:
        if await self._store.mark_ended(run_id, status, error):
            self._metrics.count_run(WORKFLOW, status)

    async def _record_error(self, run: Run, error: ServiceError) -> None:
        if isinstance(error, RunStopped):
            await self._store.release(run.id, pause=0)
        elif isinstance(error, DatabaseUnavailable | TooManyRuns):
            await self._store.release(run.id, pause=PAUSE_SECONDS)
        else:
            log.info("workflow_failed", workflow_id=run.id, error=error.code, reason=error.message)
            await self._end(run.id, "failed", error_body(error))
