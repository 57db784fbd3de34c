"""Execute runs in tasks of their own, apart from the requests that ask for them.

A request only listens to its run. When the client disconnects, the run is asked to stop at its next step
boundary, where its checkpoint is, instead of being cancelled within a step.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import replace
from typing import Final, cast

from langchain_core.callbacks import AsyncCallbackManager, BaseCallbackHandler, BaseCallbackManager
from langchain_core.runnables import patch_config
from langgraph.errors import GraphDrained
from langgraph.runtime import RunControl
from langgraph.types import Interrupt
from psycopg_pool import PoolTimeout

from checkpoints.saver import expect_reads
from core import postgres
from core.concurrency import FairSemaphore
from core.context import act_as, set_context
from core.errors import ClaimLost, RunStopped, ServiceError
from core.logging import get_logger
from core.settings import RunSettings
from service.audit.trail import AuditTrail
from service.auth.principal import Identity
from service.errors import error_body, to_service_error
from service.runs.claims import Claim, RunClaims
from service.runs.ends import SHUTDOWN, DescribeEnd, read_subject, was_suspended
from service.runs.limits import RunQueue
from service.runs.listener import RunListener
from service.runs.log.followers import RunFollowers
from service.runs.log.run_log import RunLog
from service.runs.observers import ObservedRun, RunObserver
from service.runs.output import RunResult
from service.runs.preconditions import check_preconditions, list_decisions, refuse_wrong_answers
from service.runs.replay import find_earlier_run, is_broken_off, keep_message_key, replay_output
from service.runs.request import (
    QueueName,
    RunPart,
    RunRequest,
    build_resume_call,
    build_wait_call,
)
from service.runs.rows import CancelAction, RunRow

log = get_logger(__name__)

_CANCEL_SECONDS: Final = 5


class RunExecutor:
    """Executes all runs of this process.

    Args:
        settings: How long a drain may take.
        queues: Concurrency slots and time limits of each kind of run.
        claims: Gives runs their turn on their threads.
        followers: Keeps what runs stream, for callers who come later.
        audit: Records people's decisions before the run continues with them.
        observer: Counts, traces and records runs.
        database_unavailable: Returns why the database of the checkpoints is unavailable; empty: it is not.
        settle: Waits until the saver has committed what was written on a thread.
        describe_end: Says what becomes true with the end of a run.
    """

    def __init__(
        self,
        settings: RunSettings,
        queues: Mapping[QueueName, RunQueue],
        *,
        claims: RunClaims,
        followers: RunFollowers,
        audit: AuditTrail,
        observer: RunObserver,
        database_unavailable: Callable[[], str],
        settle: Callable[[str], Awaitable[None]],
        describe_end: DescribeEnd,
    ) -> None:
        self._settings = settings
        self._queues = queues
        self._claims = claims
        self._followers = followers
        self._audit = audit
        self._observer = observer
        self._database_unavailable = database_unavailable
        self._settle = settle
        self._describe_end = describe_end
        self._tasks: dict[asyncio.Task[None], RunControl] = {}
        self._stopping = False
        self._draining: asyncio.Task[None] | None = None
        # Has the thread of a stateless run erased, when the run has ended.
        self.dispose: Callable[[RunRequest], Awaitable[None]] | None = None

    @property
    def active(self) -> int:
        """Runs in progress or waiting for their turn."""
        return len(self._tasks)

    @property
    def queued(self) -> int:
        """Runs that wait for their thread or for a concurrency slot."""
        return self.active - sum(queue.slots.active for queue in self._queues.values())

    @property
    def is_stopping(self) -> bool:
        """Whether no more runs are accepted."""
        return self._stopping

    def slots(self, queue: QueueName) -> FairSemaphore:
        """Return the concurrency slots of one kind of run."""
        return self._queues[queue].slots

    def hold_idle_thread(self, identity: Identity, thread_id: str) -> AbstractAsyncContextManager[str]:
        """Hold a tenant's thread that has no run, see :meth:`service.runs.claims.RunClaims.hold_idle`."""
        return self._claims.hold_idle(thread_id, identity.tenant, identity.user)

    async def cancel(self, run: RunRow, action: CancelAction) -> bool:
        """Cancel a run on whichever replica it is; return whether it was open."""
        return bool(await self._claims.cancel(run.tenant, run.thread_id, action, only=run.id))

    async def retry(self, run: RunRow) -> bool:
        """Queue a run that failed once more; return whether it can be executed again."""
        return await self._claims.retry(run.id)

    async def enqueue(self, request: RunRequest, *, after_seconds: float = 0) -> RunRow:
        """Have a run executed in the background, see :meth:`service.runs.claims.RunClaims.enqueue`."""
        return await self._claims.enqueue(request, self._queues[request.queue], after_seconds=after_seconds)

    async def cancel_thread(self, tenant: str, thread_id: str) -> None:
        """Ask the runs of a thread to stop, on whichever replica they are; do nothing if it has none."""
        await self._claims.cancel(tenant, thread_id, "interrupt")

    @asynccontextmanager
    async def stream(self, request: RunRequest) -> AsyncIterator[AsyncIterator[RunPart]]:
        """Execute a run and yield LangGraph's stream parts (``version="v2"``) as they come.

        The context opens when the run is admitted: when it holds its thread and a concurrency slot, and its
        preconditions are met. Leaving the context before the run has ended stops the run at its next step
        boundary, unless the run is detached.

        Raises:
            NotFound: The thread is another tenant's.
            ThreadBusy: Another run holds the thread and the strategy is ``reject``.
            TooManyRuns: No slot came free in time.
            RunStopped, RunReplaced, RunTimedOut, RunLimitReached: How the run ended early.
            ServiceError: Another precondition is not met, or another step failed.
        """
        listener = self._launch(request)
        try:
            await listener.wait_for_admission()
            yield listener.parts()
        finally:
            listener.leave(stop=not request.options.detached)

    async def start(self, request: RunRequest) -> None:
        """Begin a run that goes on without its caller; who wants its parts follows it.

        Returns when the run is admitted, or waits for its turn. Why it is not admitted then is in its row.

        Raises:
            ServiceError: The run was not admitted, see :meth:`stream`.
        """
        listener = self._launch(request, is_detached=True)
        await listener.wait_for_admission()

    def _launch(self, request: RunRequest, *, is_detached: bool = False) -> RunListener:
        if self._stopping:
            raise RunStopped("the service is stopping; try again in a moment", retry_after=5)
        if reason := self._database_unavailable():
            # Without the database the run would reach its first checkpoint and wait there.
            raise to_service_error(PoolTimeout(reason))
        listener = RunListener(is_detached=is_detached)
        task = asyncio.create_task(self._execute(request, listener))
        self._tasks[task] = listener.control
        task.add_done_callback(self._tasks.pop)
        return listener

    async def run_to_end(self, request: RunRequest) -> RunResult:
        """Execute a run to its end or its next interrupt, and return its result.

        Raises:
            ServiceError: See :meth:`stream`.
        """
        result = RunResult()
        async with self.stream(request) as parts:
            async for part in parts:
                result.take(part)
        return result

    def request_drain(self) -> None:
        """Accept no more runs and ask those in progress to stop at their next step."""
        self._stopping = True
        for control in self._tasks.values():
            if not control.drain_requested:
                control.request_drain(SHUTDOWN)

    def begin_drain(self) -> asyncio.Task[None]:
        """Drain in the background; repeated calls return the same task, done when all runs have stopped."""
        self._stopping = True
        self._draining = self._draining or asyncio.create_task(self._drain(), name="drain")
        return self._draining

    async def drain(self) -> None:
        """Wait until all runs have ended or stopped; those that take too long are cancelled.

        Runs that have not come to their end are left to another replica, or to this one's successor.
        """
        await self.begin_drain()

    async def _drain(self) -> None:
        if not self._tasks:
            return
        log.info("draining", runs=len(self._tasks))
        await asyncio.wait(set(self._tasks), timeout=self._settings.finish_seconds)
        if not self._tasks:
            return
        self.request_drain()
        _, late = await asyncio.wait(set(self._tasks), timeout=self._settings.drain_seconds)
        for task in late:
            task.cancel()
        if late:
            log.warning("cancelled_runs", runs=len(late))
            await asyncio.wait(late, timeout=_CANCEL_SECONDS)

    async def _execute(self, request: RunRequest, listener: RunListener) -> None:
        set_context(request.context)
        queue, has_ended = self._queues[request.queue], True
        deadline = asyncio.get_running_loop().time() + queue.timeout_seconds
        with self._observer.observe(request) as run:
            try:
                async with self._claims.hold(
                    request, listener.control, queue, deadline, listener.note_pending
                ) as claim:
                    act_as(replace(request.actor, attempt=claim.attempt))
                    if claim.held_by:
                        request = replace(request, context=replace(request.context, held_by=claim.held_by))
                    async with asyncio.timeout_at(deadline):
                        await self._stream(request, listener, claim, run)
                await listener.end()
            except Exception as error:  # noqa: BLE001 - a run may raise anything; to_service_error() types it
                end, has_ended = (
                    _describe_error(error, request, has_begun=listener.is_admitted),
                    not (was_suspended(error) or isinstance(error, ClaimLost)),
                )
                run.mark_failed(end.code)
                listener.error = error_body(end)
                log.info("run_ended_early", thread_id=request.thread_id, error=end.code, reason=end.message)
                listener.fail(end)
            except asyncio.CancelledError:
                # The drain has run out of time. The listener must be told without waiting again.
                has_ended = False
                run.mark_cancelled()
                listener.fail(_describe_error(GraphDrained(), request, has_begun=listener.is_admitted))
                raise
            finally:
                # The run's row says by now how it ended.
                if listener.log:
                    self._followers.end_log(request.run_id, listener.log, listener.response, listener.error)
        if has_ended and request.options.delete_thread and self.dispose:
            try:
                await self.dispose(request)
            except postgres.DATABASE_UNAVAILABLE as error:
                log.warning("thread_left_behind", thread_id=request.thread_id, reason=str(error).strip())

    async def _stream(
        self, request: RunRequest, listener: RunListener, claim: Claim, run: ObservedRun
    ) -> None:
        """Execute a run that holds its thread and a slot, and hand its parts to the listener."""
        parts = await self._begin(request, listener.control, claim, run.handler)
        claim.is_begun = True
        options = request.options
        run_log = RunLog(
            claim.attempt,
            keeps_values=options.full_state,
            stream_mode=options.stream_mode,
            subgraphs=request.subgraphs,
        )
        self._followers.open_log(request.run_id, request.thread_id, run_log)
        listener.log, result = run_log, RunResult()
        listener.admit()
        try:
            # Closed early, the step in progress ends before the thread is released.
            async with aclosing(parts):
                async for part in parts:
                    run.take(part)
                    result.take(part)
                    run_log.take(part)
                    await listener.send(part)
        finally:
            # What the last step's tasks wrote, and no checkpoint took, needs the claim to be committed.
            await self._settle(request.thread_id)
        listener.response = result.values.get("response")
        claim.is_interrupted = bool(result.interrupts) or await _is_paused(request)
        is_paused = claim.is_interrupted and not result.interrupts
        if claim.is_replay:
            return
        claim.end = self._describe_end(request, result, claim.subject, is_paused=is_paused)
        if request.on_finish and not result.interrupts:
            await request.on_finish(result.values)

    async def _begin(
        self, request: RunRequest, control: RunControl, claim: Claim, handler: BaseCallbackHandler | None
    ) -> AsyncGenerator[RunPart, None]:
        """Return the stream of a run that holds its thread, or of the earlier run it repeats.

        Raises:
            ServiceError: A precondition is not met.
        """
        if control.drain_requested:
            # Nobody waits for the run any more: it must not use the thread's turn.
            raise GraphDrained(control.drain_reason or "")
        graph, config, graph_input = request.graph, request.config, request.input
        pending: Sequence[Interrupt] = ()
        is_checked = bool(request.key) or not request.fresh
        begins_at_latest = config is request.latest_config
        # LangGraph reads the thread again, which is this run's alone.
        expect_reads(request.thread_id, is_checked + begins_at_latest, is_new=claim.is_new_thread)
        if is_checked:
            latest = await graph.aget_state(request.latest_config)
            earlier = await find_earlier_run(request, latest)
            state = latest if earlier or begins_at_latest else await graph.aget_state(config)
            claim.subject = read_subject(request, latest)
            if earlier is None and graph_input is None and claim.has_waited:
                # The run to continue was ahead on the thread, and has come to its end.
                earlier = state
            if earlier:
                if not is_broken_off(earlier):
                    claim.is_replay = not request.is_stored
                    await _start_callbacks(request)
                    return replay_output(graph, earlier)
                if claim.held_by:
                    # No agent continues where a person has taken over: the message is a new one, for them.
                    graph_input = request.input
                else:
                    # A run that began at an older checkpoint has gone on from there.
                    graph_input, config = None, request.latest_config
            check_preconditions(request, graph_input, state)
            for decision in list_decisions(graph.name, graph_input, state):
                await self._audit.record(decision)
            config, pending = keep_message_key(config, graph_input, state), state.interrupts
        callbacks = await _start_callbacks(request)
        if handler:
            callbacks.add_handler(handler)
        options = request.options
        stream = graph.astream(
            graph_input,
            patch_config(config, callbacks=callbacks),
            context=request.graph_context,
            stream_mode=list(request.modes),
            subgraphs=request.subgraphs,
            output_keys=None if options.full_state else graph.output_channels,
            interrupt_before=options.interrupt_before or None,
            interrupt_after=options.interrupt_after or None,
            durability=request.durability,
            control=control,
            version="v2",
        )
        # It is a generator and has to be closed; LangGraph's annotation is wider.
        parts = cast("AsyncGenerator[RunPart, None]", stream)
        return refuse_wrong_answers(parts, graph_input, pending) if pending else parts


async def _is_paused(request: RunRequest) -> bool:
    """Return whether a run stopped before or after a node where its caller wanted it to."""
    options = request.options
    if not (options.interrupt_before or options.interrupt_after):
        return False
    return bool((await request.graph.aget_state(request.latest_config)).next)


async def _start_callbacks(request: RunRequest) -> BaseCallbackManager:
    return await request.on_start() if request.on_start else AsyncCallbackManager([])


def _describe_error(error: BaseException, request: RunRequest, *, has_begun: bool) -> ServiceError:
    """Return the typed error; for a run that was stopped on its way, with the call that gets its answer."""
    described = to_service_error(error)
    if has_begun and isinstance(described, RunStopped | ClaimLost):
        goes_on = isinstance(error, ClaimLost) or was_suspended(error)
        described.details = {
            "thread_id": request.thread_id,
            "run_id": request.run_id,
            "resume": build_wait_call(request.run_id)
            if goes_on and request.is_recoverable
            else build_resume_call(request.graph.name, request.thread_id),
        }
    return described
