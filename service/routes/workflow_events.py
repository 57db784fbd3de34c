"""A run's progress as server-sent events.

They are made of its checkpoints and not of its stream, so that they are the same on whichever service a
client asks, and go on after a restart. A look costs a read of the thread, so there is a pause between two
that grows with what a look takes.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import asdict
from typing import Any, Final

from fastapi.encoders import jsonable_encoder
from sse_starlette import ServerSentEvent

from core.errors import NotFound, RunStopped
from service.errors import error_body, to_service_error
from service.routes import sse
from service.routes.workflow_view import RunView
from service.workflows.run_request import WorkflowGraphs
from workflows.progress import StepProgress
from workflows.store import WorkflowStore

PAUSE_SECONDS: Final = 0.25
LONGEST_PAUSE_SECONDS: Final = 5.0
# Of the time, what looking may take.
_SHARE: Final = 0.1


class WorkflowEvents:
    """Watches a run.

    Events: ``workflow`` (status, steps done of total), ``step`` (one that began, ended or failed), and at the
    end ``done`` (the report) or ``error``. An event's id is the time of what it tells: a client that comes
    back with ``Last-Event-ID`` is told what came after it, one without is told how it is.

    Args:
        store: The runs.
        graphs: Their graphs.
        since: ``Last-Event-ID``; 0: none.
        stopping: Whether the service is, which is not to wait until the run is over.
    """

    def __init__(
        self,
        store: WorkflowStore,
        graphs: WorkflowGraphs,
        *,
        since: float = 0,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._store = store
        self._graphs = graphs
        self._since = since
        self._stopping = stopping
        self._steps: dict[str, StepProgress] = {}
        self._told: dict[str, Any] = {}

    async def of(self, tenant: str, run_id: str) -> AsyncGenerator[ServerSentEvent, None]:
        """The events of a run, until it is over."""
        try:
            while True:
                began = time.monotonic()
                view = await self._look(tenant, run_id)
                for event in self._changes(view):
                    yield event
                if view.run.ended:
                    yield sse.format_event("done", jsonable_encoder(view.report()))
                    return
                await self._pause(time.monotonic() - began)
        except Exception as error:  # noqa: BLE001 - the stream has begun: its last event is where errors go
            described = to_service_error(error)
            yield sse.format_event("error", {**error_body(described), "status": described.status})

    async def _pause(self, took: float) -> None:
        if self._stopping():
            raise RunStopped(
                "the service is stopping and the workflow goes on; listen again with Last-Event-ID",
                retry_after=5,
            )
        await asyncio.sleep(min(LONGEST_PAUSE_SECONDS, max(PAUSE_SECONDS, took / _SHARE)))

    async def _look(self, tenant: str, run_id: str) -> RunView:
        run = await self._store.get(tenant, run_id)
        if run is None:
            raise NotFound(f"workflow {run_id!r} was erased")
        return await RunView.of(self._graphs, run)

    def _changes(self, view: RunView) -> Iterator[ServerSentEvent]:
        steps = view.progress.steps
        new = [step_id for step_id, found in steps.items() if found != self._steps.get(step_id)]
        for step_id in sorted(new, key=lambda one: _moment(steps[one])):
            moment = _moment(steps[step_id])
            if steps[step_id].state != "pending" and not 0 < moment <= self._since:
                told = sse.format_event("step", {"id": step_id, **asdict(steps[step_id])})
                told.id = f"{moment:.6f}" if moment else None
                yield told
        self._steps = dict(steps)
        progress = view.progress
        now = {"id": view.run.id, "status": view.run.status, "done": progress.done, "total": progress.total}
        if now != self._told:
            self._told = now
            yield sse.format_event("workflow", now)
        # What a client had heard of before it came is told once only.
        self._since = 0


def _moment(step: StepProgress) -> float:
    """When what is told of a step happened; 0: it has only begun, which has no time until it ends."""
    return round(max(step.started, step.finished), 6)
