"""Claims of this replica on runs: begin a run when its turn comes, keep it, and end it.

A run executes on its thread while its row is ``running`` and this replica renews its claim. The claim's
attempt is a fencing token: the statements that write checkpoints and begin effects check it, so that a
replica that was suspended for longer than its claim can write nothing afterwards.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from langgraph.errors import GraphDrained
from langgraph.runtime import RunControl

from core.errors import ThreadBusy
from core.logging import get_logger
from core.postgres import DATABASE_UNAVAILABLE
from core.tasks import periodic
from service.errors import REPLACED
from service.runs.ends import (
    CANCELLED,
    CLAIM_LOST,
    NO_CHANGES,
    RunEnd,
    Subject,
    describe_status,
    is_postponed,
    is_refusal,
)
from service.runs.insertion import add_run, build_run, insert_run
from service.runs.limits import RunQueue
from service.runs.notifications import Notifications
from service.runs.request import RunRequest, new_run_id
from service.runs.rows import Added, CancelAction, Cancellation, NewRun, RunRow, Successor
from service.runs.store import READY, RunStore
from service.runs.threads import no_such_thread

log = get_logger(__name__)

# How long a waiting run takes to notice that its turn has come, if the notification was lost.
POLL_SECONDS: Final = 0.5
_RENEWALS_PER_CLAIM: Final = 3
# Tenants whose open runs are shown, those with the most.
MAX_TENANTS: Final = 100


@dataclass(slots=True)
class Claim:
    """A run that this replica executes, or whose caller waits for its turn.

    Attributes:
        run_id: The run.
        thread_id: Its thread.
        control: Asks the run to stop at its next step.
        attempt: The fencing token; 0: the run waits for its turn.
        is_stored: Whether its row was inserted before, and nobody waits for its answer.
        is_new_thread: Whether the thread was inserted with the run.
        has_waited: Whether other runs were ahead of it on its thread.
        is_begun: Whether its preconditions were met.
        is_replay: Whether it answers with what an earlier run left, so that it is no run of its own.
        is_interrupted: Whether it ended with a question.
        is_ended: Whether its end is being recorded.
        subject: Whom and which message a run is about that continues or answers; ``None``: its input says so.
        end: What becomes true with its end.
        held_by: The person who has taken the thread over; empty: nobody.
        cancel_action: How it is to be cancelled.
    """

    run_id: str
    thread_id: str
    control: RunControl
    attempt: int = 0
    is_stored: bool = False
    is_new_thread: bool = False
    has_waited: bool = False
    is_begun: bool = False
    is_replay: bool = False
    is_interrupted: bool = False
    is_ended: bool = False
    subject: Subject | None = None
    end: RunEnd = NO_CHANGES
    held_by: str = ""
    cancel_action: CancelAction | None = None


class ClaimMeter(Protocol):
    """Counts claims, as :class:`service.observability.metrics.ServiceMetrics` does."""

    def record_claim(self, outcome: Literal["first", "again", "lost"]) -> None:
        """Count a claim on a run, for its first attempt or a later one, or the loss of one."""
        ...

    def show_open_runs(
        self, counts: Mapping[tuple[str, str, str, str], int], ages: Mapping[tuple[str, str, str], float]
    ) -> None:
        """Show the runs of all replicas that have not ended.

        Args:
            counts: How many, by queue, tenant, status and the replica that holds them.
            ages: Seconds since the oldest was inserted, by queue, tenant and status.
        """
        ...


class RunClaims:
    """The claims of this replica.

    Args:
        store: The table of runs.
        meter: Counts claims.
        rollback: Deletes the checkpoints of a run.
    """

    def __init__(
        self,
        store: RunStore,
        meter: ClaimMeter,
        *,
        rollback: Callable[[str, str], Awaitable[None]] | None = None,
    ) -> None:
        self.store = store
        self._meter = meter
        self._rollback = rollback
        self._claims: dict[str, Claim] = {}
        self._waiting: dict[str, set[asyncio.Event]] = {}
        # Ends that could not be recorded, because the database did not answer.
        self._unrecorded: list[tuple[Claim, BaseException | None]] = []

    @asynccontextmanager
    async def hold(
        self,
        request: RunRequest,
        control: RunControl,
        queue: RunQueue,
        deadline: float,
        on_pending: Callable[[], None] = lambda: None,
    ) -> AsyncIterator[Claim]:
        """Hold a run's thread and a concurrency slot while the run is executed, waiting for its turn.

        Args:
            request: The run.
            control: Its control.
            queue: Its concurrency slots.
            deadline: Until when it may wait, in the time of the event loop.
            on_pending: Called if the run has been inserted and has to wait.

        Raises:
            TimeoutError: Its turn has not come by the deadline.
            NotFound: The thread is another tenant's.
            ThreadBusy: The thread has a run, and the strategy is ``reject``.
            TooManyRuns: No slot came free in time, or too many runs of the tenant wait.
            GraphDrained: It was cancelled while it waited.
        """
        claim = Claim(request.run_id, request.thread_id, control, is_stored=request.is_stored)
        self._claims[claim.run_id] = claim
        async with AsyncExitStack() as stack:
            stack.callback(self._claims.pop, claim.run_id, None)
            try:
                async with asyncio.timeout_at(deadline):
                    await self._begin(request, claim, queue, on_pending)
                self._meter.record_claim("first" if claim.attempt == 1 else "again")
                stack.callback(queue.slots.release, request.identity.tenant)
                yield claim
            except BaseException as error:
                await self._finish(claim, error)
                raise
            await self._finish(claim, None)

    @asynccontextmanager
    async def hold_idle(self, thread_id: str, tenant: str, user: str) -> AsyncIterator[str]:
        """Hold a tenant's thread that has no run; runs that come meanwhile wait. Yields the claim's id.

        Raises:
            ThreadBusy: The thread has a run.
            NotFound: It is another tenant's, or there is none of that id.
        """
        hold = NewRun(
            id=new_run_id(),
            thread_id=thread_id,
            tenant=tenant,
            user=user,
            graph="",
            queue="holds",
            kwargs=None,
            strategy="reject",
        )
        added = await add_run(self.store, hold, may_start=True, may_wait=False, places=None, queue_length=0)
        if added.status != "running":
            raise ThreadBusy(
                f"thread {thread_id!r} has a run in progress, or is being erased; try again when it is done",
                retry_after=1,
            )
        claim = self._claims[hold.id] = Claim(hold.id, thread_id, RunControl(), added.attempt)
        try:
            if added.is_new_thread:
                raise no_such_thread(thread_id)
            yield hold.id
        finally:
            del self._claims[hold.id]
            drop = thread_id if added.is_new_thread else None
            await self._pass_on(claim, await self.store.discard(hold.id, added.attempt, drop_thread=drop))

    async def cancel(
        self,
        tenant: str,
        thread_id: str,
        action: CancelAction,
        *,
        only: str | None = None,
        before: str | None = None,
        reason: str = CANCELLED,
    ) -> Mapping[str, str]:
        """Cancel a thread's open runs (all, one, or those ahead of one) on whichever replica they are.

        Returns:
            Their status: ``running`` until the replica that executes it has stopped it.
        """
        cancellation = Cancellation(action, reason)
        cancelled = await self.store.cancel(tenant, thread_id, cancellation, only=only, before=before)
        for run_id, status in cancelled.items():
            if claim := self._claims.get(run_id):
                self._stop(claim, cancellation)
            elif status == "running":
                await self.store.notify(f"cancel {run_id}")
        if cancelled:
            self._wake(thread_id)
            await self.store.notify(f"free {thread_id}")
        return cancelled

    async def enqueue(self, request: RunRequest, queue: RunQueue, *, after_seconds: float = 0) -> RunRow:
        """Insert a run that any replica executes when its turn comes, and return its row.

        Args:
            request: The run.
            queue: Its concurrency slots.
            after_seconds: How long it waits at least.

        Raises:
            NotFound: The thread is another tenant's, or there is none and the run may not create it.
            ThreadBusy: The thread has a run, and the strategy is ``reject``.
            TooManyRuns: Too many runs of the tenant wait.
        """
        run = build_run(request, after_seconds=after_seconds)
        await self._insert_run(run, queue, may_start=False, held=False)
        row = await self.store.get(run.id)
        if row is None:
            raise no_such_thread(run.thread_id)
        return row

    async def retry(self, run_id: str) -> bool:
        """Queue a run that failed once more; return whether it can be executed again."""
        if not await self.store.retry(run_id):
            return False
        await self.store.notify(READY)
        return True

    async def keep(self) -> None:
        """Renew the claims until cancelled."""
        seconds = self.store.claim_seconds / _RENEWALS_PER_CLAIM
        await periodic("run-claims", self._renew_and_show, seconds=seconds, jitter=0)

    async def _renew_and_show(self) -> None:
        await self.renew()
        counts: dict[tuple[str, str, str, str], int] = {}
        ages: dict[tuple[str, str, str], float] = {}
        for part in await self.store.count_open(tenants=MAX_TENANTS):
            labels = (part.queue, part.tenant, part.status)
            counts[*labels, part.replica] = part.runs
            ages[labels] = max(part.oldest_seconds, ages.get(labels, 0))
        self._meter.show_open_runs(counts, ages)

    async def renew(self) -> None:
        """Extend all claims; stop the runs that belong to another replica by now, or are to be cancelled."""
        while self._unrecorded:
            # One that another replica has taken over meanwhile is left to it.
            await self._record_end(*self._unrecorded[0])
            del self._unrecorded[0]
        # Runs that begin or end at the same time are not this replica's in what the statement sees.
        begun = {run_id: claim.attempt > 0 for run_id, claim in self._claims.items()}
        ours = await self.store.extend(list(begun)) if begun else {}
        for run_id, was_begun in begun.items():
            claim = self._claims.get(run_id)
            if claim is None or claim.is_ended or (not was_begun and run_id not in ours):
                continue
            if run_id not in ours and claim.control.drain_reason != CLAIM_LOST:
                self._meter.record_claim("lost")
                log.warning("run_claim_lost", run_id=run_id, thread_id=claim.thread_id)
                claim.control.request_drain(CLAIM_LOST)
            elif cancellation := ours.get(run_id):
                self._stop(claim, cancellation)

    def listen(self, notifications: Notifications) -> None:
        """Hear from other replicas which threads are free and which runs to cancel."""

        async def look_at_thread(thread_id: str) -> None:
            self._wake(thread_id)

        async def look_at_run(run_id: str) -> None:
            if run_id in self._claims:
                await self.renew()

        notifications.on("free", look_at_thread)
        notifications.on("cancel", look_at_run)

    # Beginning

    async def _begin(
        self, request: RunRequest, claim: Claim, queue: RunQueue, on_pending: Callable[[], None]
    ) -> None:
        """Take a slot and the thread; see :meth:`hold`."""
        tenant, places = request.identity.tenant, queue.places
        has_slot = queue.slots.try_acquire(tenant)
        try:
            if not request.is_stored:
                added = await self._insert(request, claim, queue, may_start=has_slot)
                if added.status == "running":
                    claim.attempt = added.attempt
                    return
            on_pending()
            with self._watch_thread(claim.thread_id) as may_be_free:
                while True:
                    if not has_slot:
                        await queue.acquire(tenant)
                        has_slot = True
                    may_be_free.clear()
                    if start := await self.store.claim(claim.run_id, places=places):
                        claim.attempt, claim.held_by = start
                        return
                    queue.slots.release(tenant)
                    has_slot = False
                    with suppress(TimeoutError):
                        async with asyncio.timeout(POLL_SECONDS):
                            await may_be_free.wait()
                    await self._require_waiting(request, claim, queue)
        except BaseException:
            if has_slot:
                queue.slots.release(tenant)
            raise

    async def _insert(self, request: RunRequest, claim: Claim, queue: RunQueue, *, may_start: bool) -> Added:
        added = await self._insert_run(build_run(request), queue, may_start=may_start, held=True)
        claim.is_new_thread, claim.has_waited = added.is_new_thread, added.ahead > 0
        claim.held_by = added.held_by
        return added

    async def _insert_run(self, run: NewRun, queue: RunQueue, *, may_start: bool, held: bool) -> Added:
        """Insert a run, and cancel those ahead of it if its strategy says so."""
        added = await insert_run(self.store, run, queue, may_start=may_start, held=held)
        if added.ahead and run.strategy in {"interrupt", "rollback"}:
            action: CancelAction = "rollback" if run.strategy == "rollback" else "interrupt"
            await self.cancel(run.tenant, run.thread_id, action, before=run.id, reason=REPLACED)
        return added

    @contextmanager
    def _watch_thread(self, thread_id: str) -> Iterator[asyncio.Event]:
        """Yield an event that is set whenever the thread may be free."""
        event = asyncio.Event()
        self._waiting.setdefault(thread_id, set()).add(event)
        try:
            yield event
        finally:
            self._waiting[thread_id].discard(event)
            if not self._waiting[thread_id]:
                del self._waiting[thread_id]

    async def _require_waiting(self, request: RunRequest, claim: Claim, queue: RunQueue) -> None:
        """Raise if a waiting run was cancelled, or nobody waits for it any more."""
        if claim.control.drain_requested:
            raise GraphDrained(claim.control.drain_reason or "")
        row = await self.store.get(claim.run_id)
        if row is None:
            # The thread was erased with everything on it: the run is the first of a new one.
            added = await self._insert(request, claim, queue, may_start=False)
            log.info("run_inserted_again", run_id=claim.run_id, status=added.status)
        elif row.ended_at:
            raise GraphDrained(row.cancel_reason or "")

    # Ending

    async def _finish(self, claim: Claim, error: BaseException | None) -> None:
        """Record how a run ended, at once or when the database is back."""
        claim.is_ended = True
        try:
            # Shielded, because a run that is cancelled has to be recorded too.
            await asyncio.shield(self._record_end(claim, error))
        except DATABASE_UNAVAILABLE as failure:
            log.warning("run_end_not_recorded", run_id=claim.run_id, reason=str(failure).strip())
            self._unrecorded.append((claim, error))

    async def _record_end(self, claim: Claim, error: BaseException | None) -> None:
        if claim.cancel_action == "rollback" and isinstance(error, GraphDrained):
            if self._rollback:
                await self._rollback(claim.thread_id, claim.run_id)
            successor = await self.store.discard(claim.run_id, claim.attempt)
        elif claim.is_replay or (not claim.is_begun and not claim.is_stored and is_refusal(error)):
            drop = claim.thread_id if claim.is_new_thread else None
            successor = await self.store.discard(claim.run_id, claim.attempt, drop_thread=drop)
        elif is_postponed(error, is_stored=claim.is_stored) and await self.store.release(
            claim.run_id, claim.attempt
        ):
            await self.store.notify(READY)
            return
        else:
            status, described = describe_status(error, is_interrupted=claim.is_interrupted)
            successor = await self.store.end(
                claim.run_id,
                claim.attempt,
                status,
                described,
                events=() if error else claim.end.events,
                metadata=claim.end.thread_metadata,
            )
        await self._pass_on(claim, successor)

    async def _pass_on(self, claim: Claim, successor: Successor | None) -> None:
        """Let the run begin that is next on the thread."""
        self._wake(claim.thread_id)
        if successor is None or successor.owner == self.store.replica:
            return
        if successor.owner:
            await self.store.notify(f"free {claim.thread_id}")
        else:
            await self.store.notify(READY)

    def _wake(self, thread_id: str) -> None:
        for event in self._waiting.get(thread_id, ()):
            event.set()

    def _stop(self, claim: Claim, cancellation: Cancellation) -> None:
        claim.cancel_action = cancellation.action
        claim.control.request_drain(cancellation.reason)
        self._wake(claim.thread_id)
