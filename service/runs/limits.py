"""Limit what runs at once: one run on each thread, and a number of concurrency slots for each queue."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from langgraph.runtime import RunControl

from core.concurrency import FairSemaphore, SlotUnavailable
from core.errors import ThreadBusy, TooManyRuns
from core.settings import RunSettings, WorkflowSettings
from service.errors import REPLACED
from service.runs.preconditions import no_such_thread
from service.runs.request import QueueName, RunRequest

# The part of all slots that one of several tenants may hold: a run that has begun is not taken back.
_TENANT_SHARE = 4 / 5


@dataclass(frozen=True, slots=True)
class RunQueue:
    """Limits of one kind of run.

    Attributes:
        slots: Its concurrency slots, shared fairly between tenants.
        timeout_seconds: Time limit of a run.
    """

    slots: FairSemaphore
    timeout_seconds: float

    @asynccontextmanager
    async def slot(self, tenant: str) -> AsyncIterator[None]:
        """Hold a concurrency slot for a tenant's run, waiting for it if necessary.

        Raises:
            TooManyRuns: No slot came free in time, or too many runs of the tenant wait already.
        """
        try:
            await self.slots.acquire(tenant)
        except SlotUnavailable:
            running = self.slots.held_by(tenant)
            raise TooManyRuns(
                f"{running} runs of this tenant are in progress and no slot came free; try again in a moment",
                details={
                    "running": running,
                    "limit": self.slots.limit,
                    "limit_per_tenant": self.slots.owner_limit,
                },
                retry_after=1,
            ) from None
        try:
            yield
        finally:
            self.slots.release(tenant)


def build_queues(
    runs: RunSettings, workflows: WorkflowSettings, *, shared: bool
) -> Mapping[QueueName, RunQueue]:
    """Build the queues that the settings describe.

    Args:
        runs: Limits of runs.
        workflows: Limits of workflows, where they differ.
        shared: Whether several tenants share the slots, so that none may hold all of them.
    """
    # A limit per tenant that is set for runs does not apply to workflows.
    own = {"max_concurrent": workflows.max_concurrent, "max_concurrent_per_tenant": None}
    return {
        "runs": RunQueue(_build_slots(runs, shared=shared), runs.timeout_seconds),
        "workflows": RunQueue(
            _build_slots(runs.model_copy(update=own), shared=shared), workflows.timeout_seconds
        ),
    }


def _build_slots(settings: RunSettings, *, shared: bool) -> FairSemaphore:
    limit = settings.max_concurrent
    return FairSemaphore(
        limit,
        owner_limit=settings.max_concurrent_per_tenant
        or (max(1, int(limit * _TENANT_SHARE)) if shared else limit),
        timeout=settings.queue_seconds,
        queue_length=settings.queue_length,
    )


@dataclass(slots=True)
class _Thread:
    """A thread with runs in progress or waiting.

    Attributes:
        control: Of the run that holds the thread; ``None``: none does.
        tenant: Whose run that is.
        admitted: Whether the thread was found to be that tenant's.
        users: Runs in progress or waiting.
    """

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    control: RunControl | None = None
    tenant: str = ""
    admitted: bool = False
    users: int = 0


class ThreadLocks:
    """Let one run at a time execute on each thread of this process."""

    def __init__(self) -> None:
        self._threads: dict[str, _Thread] = {}

    def is_busy(self, thread_id: str) -> bool:
        """Return whether a thread has a run in progress or waiting."""
        return thread_id in self._threads

    def stop(self, thread_id: str) -> None:
        """Ask a thread's run to stop at its next step; do nothing if it has none."""
        thread = self._threads.get(thread_id)
        if thread and thread.control:
            thread.control.request_drain("stopped")

    @asynccontextmanager
    async def hold_for_run(self, request: RunRequest, control: RunControl) -> AsyncIterator[None]:
        """Hold a run's thread, waiting for its turn as the run's multitask strategy says.

        Raises:
            NotFound: A run of another tenant is in progress on the thread.
            ThreadBusy: A run is in progress and the strategy is ``reject``.
        """
        if thread := self._threads.get(request.thread_id):
            _apply_strategy(request, thread)
        async with self._hold(request.thread_id) as thread:
            thread.control, thread.tenant = control, request.identity.tenant
            try:
                yield
            finally:
                thread.control, thread.admitted = None, False

    def mark_admitted(self, thread_id: str) -> None:
        """Record that the thread was found to belong to the tenant whose run holds it."""
        self._threads[thread_id].admitted = True

    @asynccontextmanager
    async def hold_idle(self, thread_id: str, tenant: str) -> AsyncIterator[None]:
        """Hold a tenant's thread that has no run; runs that come meanwhile wait for their turn.

        Raises:
            ThreadBusy: The thread has a run.
            NotFound: The thread has a run of another tenant.
        """
        if thread := self._threads.get(thread_id):
            if thread.admitted and thread.tenant != tenant:
                raise no_such_thread(thread_id)
            raise ThreadBusy(
                f"thread {thread_id!r} has a run in progress, or is being erased; try again when it is done",
                retry_after=1,
            )
        async with self._hold(thread_id):
            yield

    @asynccontextmanager
    async def _hold(self, thread_id: str) -> AsyncIterator[_Thread]:
        thread = self._threads.setdefault(thread_id, _Thread())
        thread.users += 1
        try:
            async with thread.lock:
                yield thread
        finally:
            thread.users -= 1
            if not thread.users:
                del self._threads[thread_id]


def _apply_strategy(request: RunRequest, thread: _Thread) -> None:
    """Do to the run in progress what the strategy of the new one says, if both are one tenant's."""
    if thread.control is None:
        return
    if thread.tenant != request.identity.tenant:
        if thread.admitted:
            raise no_such_thread(request.thread_id)
        # The thread's owner is still being looked up: wait for the turn, and find out then.
        return
    if request.multitask_strategy == "reject":
        raise ThreadBusy(
            f"thread {request.thread_id!r} has a run in progress; wait for it, or use "
            "multitask_strategy 'enqueue' or 'interrupt'",
            retry_after=1,
        )
    if request.multitask_strategy == "interrupt":
        thread.control.request_drain(REPLACED)
