"""Execute a workflow's graph to its end or its next wait, and record how the workflow stands then."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from langchain_core.callbacks import AsyncCallbackManager, BaseCallbackManager
from langgraph.types import Command, Interrupt, StateSnapshot
from pydantic import JsonValue

from core.errors import (
    ClaimLost,
    DatabaseUnavailable,
    NothingToResume,
    RunStopped,
    ServiceError,
    ThreadBusy,
    TooManyRuns,
    WorkflowFailed,
)
from core.logging import get_logger
from core.postgres import DATABASE_UNAVAILABLE
from nodes.workflow.executors import WaitAnswer
from service.auth.principal import Identity
from service.conversations.announcements import describe_question
from service.errors import error_body, to_service_error
from service.observability.metrics import ServiceMetrics
from service.outbox.events import NewEvent, dump_events
from service.runs.executor import RunExecutor
from service.runs.output import interrupt_to_dict
from service.runs.preconditions import is_answered_elsewhere
from service.runs.request import CompiledGraph
from service.workflows.graphs import WORKFLOW, WorkflowGraphs, build_request
from service.workflows.recovery import find_recovery
from workflows.store import Run, Status, WorkflowStore

log = get_logger(__name__)

# A run that was in progress in so many processes that died is not given to another one.
MAX_INTERRUPTIONS: Final = 10
# How long an answer waits for a run that continues for another reason.
ANSWER_SECONDS: Final = 10.0
# There is no input to give: the run waits, or has ended. None is an input: it resumes the run.
_NO_INPUT: Final = object()


@dataclass(slots=True)
class Execution:
    """A run that this process executes.

    Attributes:
        run: Its row, as it was when the execution began.
        graph: Its compiled definition.
        attempt: Its latest attempt, as this process knows it; None: this process has not begun it yet.
        was_cut_off: Whether the process died that executed it last.
    """

    run: Run
    graph: CompiledGraph
    attempt: int | None
    was_cut_off: bool = False


class WorkflowExecutor:
    """Executes the graphs of workflows.

    A run of a workflow executes in stretches, each a run on its thread: from its input, an answer or its last
    checkpoint to its next wait or its end. The thread's claim keeps stretches apart, also those of different
    processes; whoever began the latest one records how the workflow stands.

    Args:
        store: The table of runs.
        graphs: Their compiled definitions.
        runs: Executes the stretches.
        metrics: Where workflows are counted.
    """

    def __init__(
        self, store: WorkflowStore, graphs: WorkflowGraphs, runs: RunExecutor, metrics: ServiceMetrics
    ) -> None:
        self._store = store
        self._graphs = graphs
        self._runs = runs
        self._metrics = metrics

    async def advance(self, run: Run) -> None:
        """Begin or continue a run that is due, to its end or its next wait.

        Raises:
            ServiceError: The database is unavailable: try again.
        """
        was_cut_off = run.status == "running"
        try:
            graph = self._graphs.compile(run.definition)
        except WorkflowFailed as error:
            await self._fail(run.id, run.attempt, error)
            return
        execution = Execution(run, graph, run.attempt, was_cut_off)
        stopped_by = await self._execute(execution, self._continue)
        if isinstance(stopped_by, DatabaseUnavailable):
            raise stopped_by

    async def answer(self, run: Run, command: Command[Any], decided_by: Identity) -> None:
        """Answer a question of a run, and execute the run to its end or its next wait.

        Raises:
            ThreadBusy: The run continues for another reason, and did not stop in :data:`ANSWER_SECONDS`.
            NothingToResume: It has ended, or does not ask this question any more.
            ServiceError: The answer does not fit the question, which stays open; or the run was stopped, and
                it is unknown whether the answer was accepted.
        """
        rejection: ServiceError | None = None

        async def give_answer(execution: Execution) -> None:
            nonlocal rejection
            try:
                await self._stream(execution, command, decided_by)
            except ServiceError as error:
                if execution.attempt is None or error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                    raise
                rejection = error
            await self._continue(execution)

        execution = Execution(run, self._graphs.compile(run.definition), attempt=None)
        stopped_by = await self._execute(execution, give_answer)
        if isinstance(stopped_by, ClaimLost):
            # The answer was accepted, and a signal or a time made the run continue elsewhere.
            stopped_by = None
        if error := rejection or stopped_by:
            raise error

    async def _execute(
        self, execution: Execution, run_graph: Callable[[Execution], Awaitable[None]]
    ) -> ServiceError | None:
        """Run the graph. Return what stopped the run on its way, if anything did; a failure is recorded."""
        try:
            await run_graph(execution)
        except (*DATABASE_UNAVAILABLE, DatabaseUnavailable) as error:
            with suppress(*DATABASE_UNAVAILABLE):
                await self._release(execution)
            return to_service_error(error)
        except (RunStopped, ClaimLost, TooManyRuns) as error:
            if execution.attempt is None:
                raise
            # Someone may have cancelled the run on the thread, which is the workflow's.
            is_cancelled = isinstance(error, RunStopped) and not self._runs.is_stopping
            await self._release(execution, is_cancelled=is_cancelled)
            return error
        except ServiceError as error:
            if execution.attempt is None:
                raise
            log.info("workflow_failed", workflow_id=execution.run.id, error=error.code, reason=error.message)
            await self._fail(execution.run.id, execution.attempt, error)
        return None

    async def _continue(self, execution: Execution) -> None:
        """Run the graph with what is due for the run, and record the outcome."""
        run, graph = execution.run, execution.graph
        if execution.was_cut_off and run.interruptions >= MAX_INTERRUPTIONS:
            raise WorkflowFailed(
                f"{run.interruptions} processes died while they executed it; recover it when that is fixed"
            )
        config = build_request(graph, run).config
        if run.started_at is None:
            await self._stream(execution, {"input": run.input})
        state = await graph.aget_state(config)
        if graph_input := find_recovery(run, state):
            await self._stream(execution, graph_input)
            state = await graph.aget_state(config)
        elif (
            run.started_at
            and run.status != "waiting"
            and state.interrupts
            and execution.attempt == run.attempt
        ):
            # Steps beside an open question may have been in progress, also inside a branch with a question.
            await self._stream(execution, None, skip_checks=True)
            state = await graph.aget_state(config)
        # A signal may have come before the run waits for it: then that wait ends at once.
        while (graph_input := await self._find_input(run, state)) is not _NO_INPUT:
            await self._stream(execution, graph_input)
            state = await graph.aget_state(config)
        await self._record_outcome(execution, state)

    async def _stream(
        self,
        execution: Execution,
        graph_input: Any,
        decided_by: Identity | None = None,
        *,
        skip_checks: bool = False,
    ) -> None:
        async def begin() -> BaseCallbackManager:
            attempt = await self._store.begin(
                execution.run.id, attempt=execution.attempt, was_cut_off=execution.was_cut_off
            )
            if attempt is None and execution.attempt is None:
                raise NothingToResume("the question was answered already, or the workflow has ended")
            if attempt is None:
                raise ClaimLost(f"workflow {execution.run.id!r} was cancelled, or continues elsewhere")
            execution.attempt, execution.was_cut_off = attempt, False
            return AsyncCallbackManager([])

        request = build_request(
            execution.graph,
            execution.run,
            graph_input,
            decided_by=decided_by,
            skip_checks=skip_checks,
            on_start=begin,
        )
        try:
            async with asyncio.timeout(ANSWER_SECONDS if decided_by else None) as patience:
                async with self._runs.stream(request) as parts:
                    patience.reschedule(None)
                    async for _ in parts:
                        pass
        except TimeoutError:
            raise ThreadBusy(
                f"workflow {execution.run.id!r} does not wait for a decision just now", retry_after=1
            ) from None

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

    async def _record_outcome(self, execution: Execution, state: StateSnapshot) -> None:
        run_id, attempt = execution.run.id, execution.attempt or 0
        if state.interrupts:
            values = [pending.value for pending in state.interrupts if isinstance(pending.value, dict)]
            dues = [value["due"] for value in values if value.get("due")]
            wake_at, events = min(dues, default=None), dump_events(_describe_questions(run_id, state))
            self._count(await self._store.mark_waiting(run_id, attempt, wake_at=wake_at, events=events))
        elif state.values.get("status") == "succeeded":
            self._count(await self._store.mark_ended(run_id, attempt, "succeeded", None))
        else:
            error = WorkflowFailed(
                state.values.get("error") or "a step failed",
                details={"failed": state.values.get("failed", [])},
            )
            await self._fail(run_id, attempt, error)

    async def _fail(self, run_id: str, attempt: int, error: ServiceError) -> None:
        self._count(await self._store.mark_ended(run_id, attempt, "failed", error_body(error)))

    async def _release(self, execution: Execution, *, is_cancelled: bool = False) -> None:
        """Leave a run to the next job, unless it is cancelled or has not begun here."""
        if execution.attempt is not None:
            run_id, attempt = execution.run.id, execution.attempt
            status = await self._store.release(run_id, attempt, is_cancelled=is_cancelled)
            self._count(status if status == "cancelled" else None)

    def _count(self, status: Status | None) -> None:
        """Count a run that has ended or waits; None: whoever continues it counts it."""
        if status:
            self._metrics.count_run(WORKFLOW, status)


def _describe_questions(run_id: str, state: StateSnapshot) -> list[NewEvent]:
    """Return an event for each question to a person; one that was open before is not written again."""
    return [
        NewEvent(
            data=describe_question(run_id, run_id, WORKFLOW, interrupt_to_dict(pending)),
            thread_id=run_id,
            once=f"question:{run_id}:{pending.id}",
        )
        for pending in state.interrupts
        if not is_answered_elsewhere(pending.value)
    ]
