"""The background task that has workflows go on: new ones, those whose time has come, those a crash broke off.

A run is held by a lease in its row of the table. The service that holds it extends it while it runs; one
that is not heard of loses it, and any service on the database goes on from the run's last checkpoint.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from langgraph.types import Command, Interrupt, StateSnapshot
from pydantic import JsonValue

from core import postgres
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
from core.tasks import background
from nodes.workflow.recovery import Recovery
from nodes.workflow.steps.wait import Woken
from service.auth.principal import Identity
from service.errors import body, describe
from service.runs.compiled import CompiledGraph
from service.runs.executor import Runs
from service.workflows.run_request import WorkflowGraphs, workflow_request
from workflows.store import Run, WorkflowStore

log = get_logger(__name__)

_JITTER: Final = 0.2
_BEATS: Final = 3
# After so many services that died running it, a run is not given to yet another.
MOST_LAPSES: Final = 10
PAUSE_SECONDS: Final = 2.0
# How long an answer waits for a run that is going on for another reason.
ANSWER_SECONDS: Final = 10.0
POLL_SECONDS: Final = 1.0


class WorkflowKeeper:
    """Runs what is due, as many at once as the settings say.

    Args:
        store: The runs.
        graphs: Their graphs.
        runs: Where they run.
        settings: Limits and the lease.
    """

    def __init__(
        self, store: WorkflowStore, graphs: WorkflowGraphs, runs: Runs, settings: WorkflowSettings
    ) -> None:
        self._store = store
        self._graphs = graphs
        self._runs = runs
        self._settings = settings
        self._active: dict[str, asyncio.Task[None]] = {}
        self._awake = asyncio.Event()
        self._listeners: dict[str, set[asyncio.Event]] = {}

    @property
    def active(self) -> int:
        """Runs of this service that are in progress."""
        return len(self._active)

    def wake(self) -> None:
        """Look for what is due now rather than with the next sweep."""
        self._awake.set()

    async def run(self) -> None:
        """Keep until cancelled; a database that is away is waited for."""
        async with background(self._beat(), "workflow-leases"):
            while True:
                if not await self._claimed():
                    await self._rest()

    async def aclose(self) -> None:
        """Wait for the runs in progress, which were asked to stop, to be left to others."""
        if self._active:
            await asyncio.wait(set(self._active.values()), timeout=PAUSE_SECONDS)

    async def answer(
        self, identity: Identity, run_id: str, interrupt_id: str, decision: JsonValue
    ) -> Run | None:
        """Answer a person's question of a run, and have it go on to its end or its next wait.

        Returns:
            The run after that; None where it was erased meanwhile.

        Raises:
            ThreadBusy: It goes on for another reason, and did not stop within :data:`ANSWER_SECONDS`.
            ServiceError: The answer does not fit the question; it stays open.
        """
        until = time.monotonic() + ANSWER_SECONDS
        while (run := await self._store.claim_waiting(identity.tenant, run_id)) is None:
            if time.monotonic() > until:
                raise ThreadBusy(f"workflow {run_id!r} does not wait for a decision just now", retry_after=1)
            await self._changed(run_id)
        task = asyncio.create_task(self._advance(run, Command(resume={interrupt_id: decision}), by=identity))
        self._hold(run.id, task)
        # Whoever decided may go away; what they decided is done.
        await asyncio.shield(task)
        return await self._store.get(identity.tenant, run_id)

    async def recover(
        self, identity: Identity, run_id: str, how: Callable[[Run, CompiledGraph], Awaitable[Recovery]]
    ) -> Recovery:
        """Have a run that is over, or waits, go on as a recovery says.

        Args:
            identity: Whose it is.
            run_id: The run.
            how: Makes the recovery while nobody else can run it.

        Raises:
            ThreadBusy: It is in progress.
            ServiceError: It cannot be recovered so; it stays as it was.
        """
        before = await self._store.get(identity.tenant, run_id)
        run = await self._store.claim_ended(identity.tenant, run_id) if before else None
        if before is None or run is None:
            raise ThreadBusy(f"workflow {run_id!r} is in progress: wait for it, or cancel it", retry_after=1)
        try:
            recovery = await how(run, self._graphs.of(run.definition))
        except BaseException:
            await asyncio.shield(self._store.put_back(before))
            raise
        self._hold(run.id, asyncio.create_task(self._drive(run, recovery.input)))
        return recovery

    async def settled(self, tenant: str, run_id: str, *, seconds: float) -> Run | None:
        """A run once it is over or waits, or as it is when the seconds are over."""
        until = time.monotonic() + seconds
        while True:
            run = await self._store.get(tenant, run_id)
            if run is None or run.ended or run.status == "waiting" or time.monotonic() >= until:
                return run
            await self._changed(run_id, min(POLL_SECONDS, max(0.01, until - time.monotonic())))

    async def _changed(self, run_id: str, seconds: float = POLL_SECONDS) -> None:
        """Until the run stops here; another service's is looked at again after some seconds."""
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

    async def _claimed(self) -> Sequence[Run]:
        free = self._settings.max_concurrent - len(self._active)
        if free <= 0 or self._runs.stopping:
            return ()
        try:
            claimed = await self._store.claim(limit=free)
        except DATABASE_UNAVAILABLE as fault:
            log.warning("workflows_not_claimed", reason=str(fault))
            return ()
        for run in claimed:
            self._hold(run.id, asyncio.create_task(self._drive(run)))
        return claimed

    async def _rest(self) -> None:
        pause = self._settings.sweep_seconds * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - no secret
        try:
            async with asyncio.timeout(pause):
                await self._awake.wait()
        except TimeoutError:
            return
        self._awake.clear()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._settings.lease_seconds / _BEATS)
            held = list(self._active)
            if not held:
                continue
            try:
                ours = await self._store.heartbeat(held)
            except DATABASE_UNAVAILABLE as fault:
                # Their checkpoints cannot be written either: they end by themselves.
                log.warning("workflow_leases_not_extended", reason=str(fault))
                continue
            for run_id in held:
                if ours.get(run_id, True):
                    # Another service has it, or it is to be cancelled.
                    self._runs.stop(run_id)

    def _hold(self, run_id: str, task: asyncio.Task[None]) -> None:
        self._active[run_id] = task
        task.add_done_callback(lambda _: self._left(run_id, task))

    def _left(self, run_id: str, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            # Somebody who gave an answer may be gone, and with them whoever would look at how it ended.
            task.exception()
        if self._active.get(run_id) is task:
            del self._active[run_id]
        for event in self._listeners.get(run_id, ()):
            event.set()
        self.wake()

    async def _drive(self, run: Run, given: Command[Any] | None = None) -> None:
        """One run, to its end or its next wait; whatever happens, the others go on."""
        try:
            await self._advance(run, given)
        except Exception as error:  # noqa: BLE001 - describe() types and logs it; the lease lapses
            described = describe(error)
            log.warning("workflow_not_advanced", workflow_id=run.id, reason=described.message)

    async def _advance(
        self, run: Run, command: Command[Any] | None = None, *, by: Identity | None = None
    ) -> None:
        """Have a run go on.

        Args:
            run: Claimed.
            command: An answer, or a recovery; None: what is due for it.
            by: Who gave the answer.

        Raises:
            ServiceError: The answer was not taken.
        """
        if run.cancel_requested:
            await self._store.ends(run.id, "cancelled", None)
            return
        try:
            refused = await self._stepped(run, command, by)
        except postgres.DATABASE_UNAVAILABLE as fault:
            raise describe(fault) from fault
        except ServiceError as error:
            await self._stopped(run, error)
            # Whether the answer was taken is not known: the one who gave it is told to give it again.
            refused = error if command and isinstance(error, RunStopped | DatabaseUnavailable) else None
        if refused:
            raise refused

    async def _stepped(
        self, run: Run, command: Command[Any] | None, by: Identity | None
    ) -> ServiceError | None:
        """Run on, and keep what came of it. Returns why an answer was refused, the question staying open."""
        if run.lapses > MOST_LAPSES:
            raise WorkflowFailed(
                f"{run.lapses} services died while they ran it; recover it when that is mended"
            )
        graph = self._graphs.of(run.definition)
        config = workflow_request(graph, run).config
        refused = await self._commanded(graph, run, command, by) if command else None
        if run.fresh:
            await self._streamed(graph, run, {"input": run.input})
        state = await graph.aget_state(config)
        if run.broken_off and state.interrupts:
            # Steps beside what waits may have been in progress, also inside a branch in which another waits.
            await self._streamed(graph, run, None, going_on=True)
            state = await graph.aget_state(config)
        # A signal may have come before it is waited for: then the next wait is over at once.
        while (given := await self._given(run, state)) is not _NOTHING:
            await self._streamed(graph, run, given)
            state = await graph.aget_state(config)
        await self._keep(run, state)
        return refused

    async def _commanded(
        self, graph: CompiledGraph, run: Run, command: Command[Any], by: Identity | None
    ) -> ServiceError | None:
        """Give the graph an answer or a recovery. Returns why it does not fit."""
        while True:
            try:
                await self._streamed(graph, run, command, by)
            except TooManyRuns as error:
                if by:
                    return error
                # A recovery was promised, and nobody would ask for it again.
                await asyncio.sleep(PAUSE_SECONDS)
            except ServiceError as error:
                if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                    raise
                return error
            else:
                return None

    async def _streamed(
        self,
        graph: CompiledGraph,
        run: Run,
        given: Any,
        by: Identity | None = None,
        *,
        going_on: bool = False,
    ) -> None:
        async for _ in self._runs.stream(workflow_request(graph, run, given, by=by, going_on=going_on)):
            pass

    async def _given(self, run: Run, state: StateSnapshot) -> Any:
        """What the graph is to be given: the input, what it waited for, None to go on, or nothing at all."""
        if state.created_at is None:
            return {"input": run.input}
        if state.interrupts:
            answers = {
                pending.id: woken
                for pending in state.interrupts
                if (woken := await self._woken(run, pending))
            }
            return Command(resume=answers) if answers else _NOTHING
        # Not ``next``: it leaves out steps that have written, and died before their checkpoint was made.
        return None if state.tasks else _NOTHING

    async def _woken(self, run: Run, pending: Interrupt) -> dict[str, JsonValue] | None:
        """What ends a wait; None: it waits on, or for a person."""
        waiting = pending.value if isinstance(pending.value, Mapping) else {}
        if waiting.get("kind") == "signal":
            came = await self._store.take_signal(run.id, pending.id, str(waiting["signal"]))
            if came:
                return Woken(kind="signal", payload=came.payload).model_dump()
        if waiting.get("kind") in {"signal", "timer"} and 0 < waiting["due"] <= time.time():
            return Woken(kind="due").model_dump()
        return None

    async def _keep(self, run: Run, state: StateSnapshot) -> None:
        if state.interrupts:
            dues = [
                pending.value.get("due") for pending in state.interrupts if isinstance(pending.value, dict)
            ]
            await self._store.waits(run.id, wake_at=min((due for due in dues if due), default=None))
        elif state.values.get("status") == "succeeded":
            await self._store.ends(run.id, "succeeded", None)
        else:
            error = WorkflowFailed(
                state.values.get("error") or "a step failed",
                details={"failed": state.values.get("failed", [])},
            )
            await self._store.ends(run.id, "failed", body(error))

    async def _stopped(self, run: Run, error: ServiceError) -> None:
        if isinstance(error, RunStopped):
            await self._store.release(run.id, pause=0)
        elif isinstance(error, DatabaseUnavailable | TooManyRuns):
            await self._store.release(run.id, pause=PAUSE_SECONDS)
        else:
            log.info("workflow_failed", workflow_id=run.id, error=error.code, reason=error.message)
            await self._store.ends(run.id, "failed", body(error))


# There is nothing to give: it waits on, or is over.
_NOTHING: Final = object()
