"""Runs: graphs executed apart from the requests that asked for them.

A run has a task of its own. A request only listens to it: when the client goes away, the run is asked to
stop at its next step boundary, where its checkpoint is, instead of being torn out of a step. One run at a
time on a thread, and a bounded number in all.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from langchain_core.callbacks import BaseCallbackHandler
from langgraph.errors import GraphDrained
from langgraph.runtime import RunControl
from psycopg_pool import PoolTimeout

from core.concurrency import FairSemaphore
from core.context import act_as, set_context
from core.errors import RunStopped, ServiceError, ThreadBusy
from core.logging import get_logger
from core.settings import RunSettings
from service.errors import REPLACED, to_service_error
from service.runs.limits import RunQueue
from service.runs.observers import RunObserver
from service.runs.preconditions import no_such_thread
from service.runs.request import QueueName, RunPart, RunRequest, build_resume_call
from service.runs.start import RunStart

log = get_logger(__name__)

# Parts a run may be ahead of its listener.
_BACKLOG = 1_000


@dataclass(slots=True)
class _Thread:
    """A thread with runs in progress or waiting.

    Attributes:
        current: Of the run that has its turn.
        tenant: Whose run that is.
        admitted: Whether the thread was found to be that tenant's.
        users: Runs in progress or waiting.
    """

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    current: RunControl | None = None
    tenant: str = ""
    admitted: bool = False
    users: int = 0


class Runs:
    """All runs of this process.

    Args:
        settings: Limits.
        lanes: Places and time limits of each kind of run.
        start: Admits and begins them.
        watch: Is told of them.
        database_away: Why the database of their checkpoints cannot be asked; empty: it can.
    """

    def __init__(
        self,
        settings: RunSettings,
        lanes: Mapping[QueueName, RunQueue],
        start: RunStart,
        watch: RunObserver,
        database_away: Callable[[], str],
    ) -> None:
        self._settings = settings
        self._lanes = lanes
        self._start = start
        self._watch = watch
        self._database_away = database_away
        self._threads: dict[str, _Thread] = {}
        self._tasks: dict[asyncio.Task[None], RunControl] = {}
        self._stopping = False
        self._draining: asyncio.Task[None] | None = None

    @property
    def active(self) -> int:
        """Runs in progress or waiting for their turn."""
        return len(self._tasks)

    @property
    def queued(self) -> int:
        """Runs that wait for their thread or for a place."""
        return self.active - sum(lane.slots.active for lane in self._lanes.values())

    def places(self, lane: QueueName) -> FairSemaphore:
        """The places of one kind of run."""
        return self._lanes[lane].slots

    async def stream(self, request: RunRequest) -> AsyncGenerator[RunPart, None]:
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
        if away := self._database_away():
            # Without it a run would only come to its first checkpoint, and wait there.
            raise to_service_error(PoolTimeout(away))
        parts: asyncio.Queue[RunPart | ServiceError | None] = asyncio.Queue(_BACKLOG)
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

    @property
    def stopping(self) -> bool:
        """Whether no more runs are taken."""
        return self._stopping

    def stop(self, thread_id: str) -> None:
        """Ask a thread's run to stop at its next step; a thread without one is left alone."""
        thread = self._threads.get(thread_id)
        if thread and thread.current:
            thread.current.request_drain("stopped")

    def holds(self, thread_id: str) -> bool:
        """Whether a thread has a run in progress or waiting."""
        return thread_id in self._threads

    @asynccontextmanager
    async def quiet(self, thread_id: str, tenant: str) -> AsyncIterator[None]:
        """Hold a tenant's thread that has no run; runs that come meanwhile wait for their turn.

        Raises:
            ThreadBusy: It has one.
            NotFound: It has one, of another tenant.
        """
        if thread := self._threads.get(thread_id):
            if thread.admitted and thread.tenant != tenant:
                raise no_such_thread(thread_id)
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

    def begin_drain(self) -> asyncio.Task[None]:
        """Drain in the background.

        Returns:
            Done when all runs have stopped; the same however often it is asked for.
        """
        self.request_drain()
        self._draining = self._draining or asyncio.create_task(self._drain(), name="drain")
        return self._draining

    async def drain(self) -> None:
        """Wait until all runs have stopped; those that take too long are cancelled."""
        await self.begin_drain()

    async def _drain(self) -> None:
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
        parts: asyncio.Queue[RunPart | ServiceError | None],
        listening: asyncio.Event,
    ) -> None:
        has_begun = False
        set_context(request.context)
        act_as(request.actor)
        with self._watch.over(request) as run:
            try:
                limit = self._lanes[request.lane].timeout_seconds
                async with asyncio.timeout(limit), self._turn(request, control):
                    making = await self._admitted(request, control, run.handler)
                    has_begun = True
                    # Left early, the step in progress ends before the thread is another run's.
                    async with contextlib.aclosing(making):
                        async for part in making:
                            run.take(part)
                            if listening.is_set():
                                await parts.put(part)
                if listening.is_set():
                    # The last parts are the answer: the end waits for room, and takes none of theirs.
                    await parts.put(None)
            except Exception as error:  # noqa: BLE001 - a run may end with anything; describe() types it
                end = _described(error, request, has_begun=has_begun)
                run.failed(end.code)
                log.info("run_ended_early", thread_id=request.thread_id, error=end.code, reason=end.message)
                _end_at_once(parts, end)
            except asyncio.CancelledError:
                # The drain has no more time. Who listens must hear of it, without another wait.
                run.cancelled()
                _end_at_once(parts, _described(GraphDrained(), request, has_begun=has_begun))
                raise

    async def _admitted(
        self, request: RunRequest, control: RunControl, handler: BaseCallbackHandler | None
    ) -> AsyncGenerator[RunPart, None]:
        if control.drain_requested:
            # Nobody waits for it any more: it must not take the thread's next turn.
            raise GraphDrained(control.drain_reason or "")
        parts = await self._start.parts(request, control, handler)
        self._threads[request.thread_id].admitted = True
        return parts

    @asynccontextmanager
    async def _turn(self, request: RunRequest, control: RunControl) -> AsyncIterator[None]:
        """Hold the thread, then a slot."""
        lane = self._lanes[request.lane]
        async with self._thread(request, control), lane.slot(request.identity.tenant):
            yield

    @asynccontextmanager
    async def _thread(self, request: RunRequest, control: RunControl) -> AsyncIterator[None]:
        if thread := self._threads.get(request.thread_id):
            _meet(request, thread)
        async with self._held(request.thread_id) as held:
            held.current, held.tenant = control, request.identity.tenant
            try:
                yield
            finally:
                held.current, held.admitted = None, False

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


def _meet(request: RunRequest, thread: _Thread) -> None:
    """Do to the run in progress what the strategy of the new one says, where both are one tenant's.

    Raises:
        NotFound: The thread is another tenant's.
        ThreadBusy: The strategy is ``reject``.
    """
    if thread.current is None:
        return
    if thread.tenant != request.identity.tenant:
        if thread.admitted:
            raise no_such_thread(request.thread_id)
        # Whose the thread is, is only being found out: wait for one's turn, and be told then.
        return
    if request.multitask_strategy == "reject":
        raise ThreadBusy(
            f"thread {request.thread_id!r} has a run in progress; wait for it, or ask with "
            "multitask_strategy 'enqueue' or 'interrupt'",
            retry_after=1,
        )
    if request.multitask_strategy == "interrupt":
        thread.current.request_drain(REPLACED)


def _end_at_once(parts: asyncio.Queue[RunPart | ServiceError | None], end: ServiceError) -> None:
    """Say how it ended, with room made for it: a listener that is slow, or gone, holds no run up."""
    if parts.full():
        parts.get_nowait()
    parts.put_nowait(end)


def _described(error: BaseException, request: RunRequest, *, has_begun: bool) -> ServiceError:
    """The typed error; of a run that was stopped on its way, with what goes on with it."""
    described = to_service_error(error)
    if has_begun and isinstance(described, RunStopped):
        described.details = {
            "thread_id": request.thread_id,
            "resume": build_resume_call(request.graph.name, request.thread_id),
        }
    return described
