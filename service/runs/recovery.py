"""Execute runs that no caller waits for: those whose replica died or stopped, and those that were queued."""

from collections.abc import Mapping
from typing import Any, Final

from langchain_core.callbacks import AsyncCallbackManager, BaseCallbackManager

from core.deadline import restore_deadline
from core.errors import RunLost
from core.logging import get_logger
from core.settings import RunSettings
from graphs.registry import REGISTRY
from service.errors import error_body
from service.runs.event_exchange import EventExchange
from service.runs.executor import RunExecutor
from service.runs.followers import KEEP_SECONDS
from service.runs.journeys import JourneyRouter
from service.runs.queue import TaskQueue
from service.runs.request import CompiledGraph, RunRequest, build_run_request
from service.runs.sessions import SESSION_GRAPH, SessionRuns
from service.runs.store import READY, RunRow, RunStore
from service.runs.stored import load_identity, load_input

log = get_logger(__name__)

# Between two searches for runs whose replica is silent.
REQUEUE_SECONDS: Final = 2.0
_CLEANUP_SECONDS: Final = 3_600.0
LOST: Final = "the replicas that executed the run died; POST /v1/runs/{id}/retry goes on from its last step"


class RunRecovery:
    """Executes pending runs that no caller waits for.

    Args:
        store: The table of runs.
        runs: Executes them.
        events: Carries their events between replicas.
        graphs: The compiled graphs by name.
        session_runs: Enters and closes the sessions of runs.
        journeys: Registers the journeys of runs.
    """

    def __init__(
        self,
        store: RunStore,
        runs: RunExecutor,
        events: EventExchange,
        *,
        graphs: Mapping[str, CompiledGraph],
        session_runs: SessionRuns,
        journeys: JourneyRouter,
    ) -> None:
        self._store = store
        self._runs = runs
        self._events = events
        self._graphs = graphs
        self._session_runs = session_runs
        self._journeys = journeys
        self._keep_days = 0.0

    def schedule(self, queue: TaskQueue, settings: RunSettings) -> None:
        """Register the tasks that free the runs of silent replicas and delete old rows."""
        self._keep_days = settings.keep_days
        queue.every("requeue-runs", self.requeue, seconds=REQUEUE_SECONDS)
        queue.every("delete-ended-runs", self._delete_ended, seconds=_CLEANUP_SECONDS)
        queue.every("delete-run-events", self._delete_events, seconds=KEEP_SECONDS)

    async def execute(self, row: RunRow) -> None:
        """Execute a run that this replica holds to its end.

        Raises:
            ServiceError: It ended early, see :meth:`service.runs.executor.RunExecutor.stream`.
        """
        kwargs = row.kwargs or {}
        restore_deadline(kwargs["deadline"])
        await self._runs.run_to_end(self._load(row, kwargs))

    async def requeue(self) -> None:
        """Free the runs whose replica stopped renewing its claims."""
        freed = await self._store.requeue(error_body(RunLost(LOST)))
        for row in freed:
            log.warning("run_requeued", run_id=row["id"], thread_id=row["thread_id"], status=row["status"])
        if freed:
            await self._store.notify(READY)

    async def _delete_ended(self) -> None:
        while await self._store.delete_ended(days=self._keep_days):
            pass

    async def _delete_events(self) -> None:
        await self._events.delete_old(seconds=KEEP_SECONDS)

    def _load(self, row: RunRow, kwargs: Mapping[str, Any]) -> RunRequest:
        spec, identity, graph_input = REGISTRY[row.graph], load_identity(row, kwargs), load_input(kwargs)
        on_start = self._journeys.register_on_start(
            spec, identity, graph_input, thread_id=row.thread_id, on_start=_listen_to_nobody
        )
        if spec is SESSION_GRAPH:
            on_start = self._session_runs.enter_on_start(
                identity, graph_input, thread_id=row.thread_id, key=kwargs["key"], on_start=on_start
            )
        return build_run_request(
            self._graphs[row.graph],
            spec,
            graph_input,
            identity=identity,
            thread_id=row.thread_id,
            locale=kwargs["locale"],
            metadata=kwargs["metadata"],
            tags=kwargs["tags"],
            modes=tuple(kwargs["modes"]),
            subgraphs=kwargs["subgraphs"],
            on_start=on_start,
            on_finish=self._session_runs.close_on_finish(spec, identity, row.thread_id),
            key=kwargs["key"],
            run_id=row.id,
            is_stored=True,
            is_from_person=kwargs["is_from_person"],
        )


async def _listen_to_nobody() -> BaseCallbackManager:
    return AsyncCallbackManager([])
