"""Runs: graphs executed apart from the requests that asked for them.

A run has a task of its own. A request only listens to it: when the client goes away, the run is asked to
stop at its next step boundary, where its checkpoint is, instead of being torn out of a step. One run at a
time on a thread, and a bounded number in all.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from langchain_core.callbacks import AsyncCallbackManager, BaseCallbackHandler, BaseCallbackManager
from langchain_core.runnables import RunnableConfig, patch_config
from langgraph.errors import GraphDrained
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import RunControl
from langgraph.types import Durability, StreamMode, StreamPart
from psycopg_pool import PoolTimeout

from api.admission import MultitaskStrategy, admit
from api.errors import REPLACED, describe
from api.repetition import earlier_run, is_broken_off, replayed
from api.resumption import resume_request
from api.telemetry.metrics import ServiceMetrics, metered_run
from api.telemetry.tracing import Tracing
from checkpoints.pool import WatchedPool
from core.context import Context
from core.errors import RunStopped, ServiceError, ThreadBusy, TooManyRuns
from core.logging import get_logger
from core.settings import RunSettings

log = get_logger(__name__)

# LangGraph's: a dict with "type" (the mode), "ns" and "data".
Part: TypeAlias = StreamPart[Any, Any]

# Parts a run may be ahead of its listener.
_BACKLOG = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What to run.

    Attributes:
        graph: Compiled, with its checkpointer.
        input: As the graph's input schema says.
        config: Run name, metadata and ``configurable.thread_id``.
        fresh: Whether the thread was made for this run, so that there is no state to look at first.
        context: The run's parameters.
        durability: When checkpoints are written.
        modes: LangGraph's stream modes to listen to.
        subgraphs: Whether to listen to the graphs inside it too.
        multitask_strategy: What to do when the thread has a run in progress.
        begin: Called when the run is admitted, before its first step; gives the callbacks it reports to.
        repeats: Id of a message that came before: its run is gone on with, or its answer given again.
    """

    graph: CompiledStateGraph[Any, Any, Any, Any]
    input: Any
    config: RunnableConfig
    fresh: bool
    context: Context
    durability: Durability
    modes: tuple[StreamMode, ...]
    subgraphs: bool = False
    multitask_strategy: MultitaskStrategy = "enqueue"
    begin: Callable[[], Awaitable[BaseCallbackManager]] | None = None
    repeats: str = ""

    @property
    def thread_id(self) -> str:
        """The thread the run is on."""
        return str(self.config["configurable"]["thread_id"])


@dataclass(slots=True)
class _Thread:
    """A thread with runs in progress or waiting."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    current: RunControl | None = None
    users: int = 0


class Runs:
    """All runs of this process.

    Args:
        settings: Limits.
        metrics: Where runs are counted.
        tracing: Where they are traced.
        pool: Of the database their checkpoints are in.
    """

    def __init__(
        self, settings: RunSettings, metrics: ServiceMetrics, tracing: Tracing, pool: WatchedPool
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._tracing = tracing
        self._pool = pool
        self._begun = 0
        self._slots = asyncio.Semaphore(settings.max_concurrent)
        self._threads: dict[str, _Thread] = {}
        self._tasks: dict[asyncio.Task[None], RunControl] = {}
        self._stopping = False

    @property
    def active(self) -> int:
        """Runs in progress or waiting for their turn."""
        return len(self._tasks)

    @property
    def queued(self) -> int:
        """Runs that wait for their thread or for a place."""
        return self.active - self._begun

    @property
    def places(self) -> int:
        """Runs that may be in progress at once."""
        return self._settings.max_concurrent

    @property
    def is_full(self) -> bool:
        """Whether no place is free."""
        return self._slots.locked()

    async def stream(self, request: RunRequest) -> AsyncGenerator[Part, None]:
        """Run, and give LangGraph's stream parts (``version="v2"``) as they come.

        Closing the generator, or cancelling who waits for it, stops the run at its next step boundary.

        Raises:
            ThreadBusy: Another run holds the thread and the strategy is ``reject``.
            TooManyRuns: No slot came free in time.
            RunStopped, RunReplaced, RunTimedOut, RunLimitReached: How the run ended early.
            ServiceError: Whatever else failed, typed.
        """
        if self._stopping:
            raise RunStopped("the service is stopping; ask again in a moment", retry_after=5)
        if self._pool.away:
            # Without it a run would only come to its first checkpoint, and wait there.
            raise describe(PoolTimeout(self._pool.away))
        parts: asyncio.Queue[Part | ServiceError | None] = asyncio.Queue(_BACKLOG)
        control = RunControl()
        listening = asyncio.Event()
        listening.set()
        task = asyncio.create_task(self._drive(request, control, parts, listening))
        self._tasks[task] = control
        task.add_done_callback(self._tasks.pop)
        try:
            # None marks the end.
            while (part := await parts.get()) is not None:
                if isinstance(part, ServiceError):
                    raise part
                yield part
        finally:
            listening.clear()
            control.request_drain("client_gone")
            with contextlib.suppress(asyncio.QueueEmpty):
                # Wakes the run where it waits to hand over a part nobody will take.
                while True:
                    parts.get_nowait()

    def holds(self, thread_id: str) -> bool:
        """Whether a thread has a run in progress or waiting."""
        return thread_id in self._threads

    @asynccontextmanager
    async def quiet(self, thread_id: str) -> AsyncIterator[None]:
        """Hold a thread that has no run; runs that come meanwhile wait for their turn.

        Raises:
            ThreadBusy: It has one.
        """
        if self.holds(thread_id):
            raise ThreadBusy(
                f"thread {thread_id!r} has a run in progress, or is being erased; ask again when it is done",
                retry_after=1,
            )
        async with self._held(thread_id):
            yield

    def request_drain(self) -> None:
        """Take no more runs and ask those in progress to stop at their next step."""
        self._stopping = True
        for control in self._tasks.values():
            control.request_drain("shutdown")

    async def drain(self) -> None:
        """Wait until all runs have stopped; those that take too long are cancelled."""
        self.request_drain()
        if not self._tasks:
            return
        log.info("draining", runs=len(self._tasks))
        _, late = await asyncio.wait(set(self._tasks), timeout=self._settings.drain_seconds)
        for task in late:
            task.cancel()
        if late:
            log.warning("cancelled_runs", runs=len(late))
            await asyncio.wait(late, timeout=5)

    async def _drive(
        self,
        request: RunRequest,
        control: RunControl,
        parts: asyncio.Queue[Part | ServiceError | None],
        listening: asyncio.Event,
    ) -> None:
        end: ServiceError | None = None
        has_begun = False
        name = request.graph.name
        with self._tracing.run(name, request.thread_id) as trace, metered_run(self._metrics, name) as run:
            try:
                async with asyncio.timeout(self._settings.timeout_seconds), self._turn(request, control):
                    making = await self._parts(request, control, trace.callbacks)
                    has_begun = True
                    async for part in making:
                        run.take(part)
                        if listening.is_set():
                            await parts.put(part)
            except Exception as error:  # noqa: BLE001 - a run may end with anything; describe() types it
                end = _described(error, request, has_begun=has_begun)
                run.outcome = end.code
                log.info("run_ended_early", thread_id=request.thread_id, error=end.code, reason=end.message)
            except asyncio.CancelledError:
                # The drain has no more time. Who listens must hear of it, without another wait.
                run.outcome = "cancelled"
                if parts.full():
                    parts.get_nowait()
                parts.put_nowait(_described(GraphDrained(), request, has_begun=has_begun))
                raise
            finally:
                trace.ended(run.outcome, failed=end is not None)
        if listening.is_set():
            await parts.put(end)

    @staticmethod
    async def _parts(
        request: RunRequest, control: RunControl, spans: BaseCallbackHandler | None
    ) -> AsyncIterator[Part]:
        if control.drain_requested:
            # Nobody waits for it any more: it must not take the thread's next turn.
            raise GraphDrained(control.drain_reason or "")
        given = request.input
        if request.repeats:
            earlier = await earlier_run(request.graph, request.config, request.repeats)
            if earlier and not is_broken_off(earlier):
                return replayed(request.graph, earlier)
            given = None if earlier else given
        if not request.fresh:
            await admit(request.graph, request.config, given, request.multitask_strategy)
        callbacks = await request.begin() if request.begin else AsyncCallbackManager([])
        if spans:
            callbacks.add_handler(spans)
        return request.graph.astream(
            given,
            patch_config(request.config, callbacks=callbacks),
            context=request.context,
            stream_mode=list(request.modes),
            subgraphs=request.subgraphs,
            output_keys=request.graph.output_channels,
            durability=request.durability,
            control=control,
            version="v2",
        )

    @asynccontextmanager
    async def _turn(self, request: RunRequest, control: RunControl) -> AsyncIterator[None]:
        """Hold the thread, then a slot."""
        async with self._thread(request, control), self._slot():
            self._begun += 1
            try:
                yield
            finally:
                self._begun -= 1

    @asynccontextmanager
    async def _thread(self, request: RunRequest, control: RunControl) -> AsyncIterator[None]:
        thread = self._threads.get(request.thread_id, _Thread())
        if thread.current and request.multitask_strategy == "reject":
            raise ThreadBusy(
                f"thread {request.thread_id!r} has a run in progress; wait for it, or ask with "
                "multitask_strategy 'enqueue' or 'interrupt'",
                retry_after=1,
            )
        if thread.current and request.multitask_strategy == "interrupt":
            thread.current.request_drain(REPLACED)
        async with self._held(request.thread_id) as held:
            held.current = control
            try:
                yield
            finally:
                held.current = None

    @asynccontextmanager
    async def _held(self, thread_id: str) -> AsyncIterator[_Thread]:
        """Wait for a thread's turn."""
        thread = self._threads.setdefault(thread_id, _Thread())
        thread.users += 1
        try:
            async with thread.lock:
                yield thread
        finally:
            thread.users -= 1
            if not thread.users:
                del self._threads[thread_id]

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._settings.queue_seconds):
                await self._slots.acquire()
        except TimeoutError:
            raise TooManyRuns(
                f"{self._settings.max_concurrent} runs are in progress; ask again in a moment", retry_after=1
            ) from None
        try:
            yield
        finally:
            self._slots.release()


def _described(error: BaseException, request: RunRequest, *, has_begun: bool) -> ServiceError:
    """The typed error; of a run that was stopped on its way, with what goes on with it."""
    described = describe(error)
    if has_begun and isinstance(described, RunStopped):
        described.details = {
            "thread_id": request.thread_id,
            "resume": resume_request(request.graph.name, request.thread_id),
        }
    return described
