"""Execute runs that no caller waits for: those whose replica died or stopped, and those that were queued."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, cast

from langchain_core.callbacks import AsyncCallbackManager, BaseCallbackManager

from core.errors import RunLost, ServiceError
from core.logging import get_logger
from core.settings import RunSettings
from service.errors import error_body
from service.runs.executor import RunExecutor
from service.runs.followers import KEEP_SECONDS
from service.runs.graphs import GraphCatalogue
from service.runs.hooks import RunHooks
from service.runs.part_exchange import PartExchange
from service.runs.queue import TaskQueue
from service.runs.request import MultitaskStrategy, RunRequest, build_run_request
from service.runs.store import RunRow, RunStore
from service.runs.stored import load_identity, load_input, load_options

log = get_logger(__name__)

EXECUTE_RUN: Final = "execute-run"
# Between two searches for runs whose replica is silent.
REQUEUE_SECONDS: Final = 2.0
# A pending run without a job is given one after so long.
_LOST_SECONDS: Final = 10.0
_CLEANUP_SECONDS: Final = 3_600.0
LOST: Final = "the replicas that executed the run died; POST /v1/runs/{id}/retry goes on from its last step"


async def defer_run(queue: TaskQueue, run_id: str, thread_id: str, at: datetime | None = None) -> None:
    """Have any replica execute a pending run when its turn comes, at the earliest at a time."""
    # A job that is due later holds up none of its lock.
    lock = thread_id if at is None else run_id
    await queue.defer(EXECUTE_RUN, lock=lock, queueing_lock=run_id, at=at, run_id=run_id)


class RunRecovery:
    """Executes pending runs that no caller waits for.

    Args:
        store: The table of runs.
        runs: Executes them.
        exchange: Carries the parts of their streams between replicas.
        graphs: The graphs by name.
        hooks: What happens around runs.
    """

    def __init__(
        self,
        store: RunStore,
        runs: RunExecutor,
        exchange: PartExchange,
        *,
        graphs: GraphCatalogue,
        hooks: RunHooks,
    ) -> None:
        self._store = store
        self._runs = runs
        self._exchange = exchange
        self._graphs = graphs
        self._hooks = hooks
        self._queue: TaskQueue | None = None
        self._keep_days = 0.0

    def schedule(self, queue: TaskQueue, settings: RunSettings) -> None:
        """Register the tasks that execute pending runs, free those of silent replicas and delete old rows."""
        self._queue, self._keep_days = queue, settings.keep_days
        queue.register(EXECUTE_RUN, self.execute)
        queue.every("requeue-runs", self.requeue, seconds=REQUEUE_SECONDS)
        queue.every("delete-ended-runs", self._delete_ended, seconds=_CLEANUP_SECONDS)
        queue.every("delete-run-parts", self._delete_parts, seconds=KEEP_SECONDS)

    async def execute(self, run_id: str) -> None:
        """Execute a run to its end, unless another replica has it or it was cancelled.

        How it ended is in its row; nobody else asks.
        """
        row = await self._store.get(run_id)
        if row is None or row.status != "pending" or row.claimed_by or row.kwargs is None:
            return
        if not await self._store.is_next(run_id):
            # Whoever ends the run ahead of it gives it a job. This one would wait with the thread's lock,
            # which the job of the run ahead may need.
            return
        try:
            await self._runs.run_to_end(await self._load(row, row.kwargs))
        except ServiceError as error:
            log.info("queued_run_ended_early", run_id=run_id, error=error.code, reason=error.message)

    async def requeue(self) -> None:
        """Free the runs whose replica stopped renewing its claims, and give lost ones a job."""
        freed = await self._store.requeue(error_body(RunLost(LOST)))
        for row in freed:
            log.warning("run_requeued", run_id=row["id"], thread_id=row["thread_id"], status=row["status"])
        waiting = {row["id"]: row["thread_id"] for row in freed if row["status"] == "pending"}
        waiting.update(await self._store.list_unclaimed(seconds=_LOST_SECONDS))
        if self._queue:
            # Nearly all of them have a job already: of thousands that wait, one statement finds those that
            # have none.
            jobs = {run_id: {"run_id": run_id} for run_id in waiting}
            await self._queue.defer_missing(EXECUTE_RUN, jobs, locks=waiting)

    async def _delete_ended(self) -> None:
        while await self._store.delete_ended(days=self._keep_days):
            pass

    async def _delete_parts(self) -> None:
        await self._exchange.delete_old(seconds=KEEP_SECONDS)

    async def _load(self, row: RunRow, kwargs: Mapping[str, Any]) -> RunRequest:
        graph, identity = self._graphs.find(row.graph), load_identity(row, kwargs)
        graph_input, options = load_input(kwargs), load_options(row, kwargs)
        hooks = self._hooks.build(
            graph.spec,
            identity,
            graph_input,
            thread_id=row.thread_id,
            key=kwargs["key"],
            on_start=listen_to_nobody,
        )
        return build_run_request(
            await graph.open(
                "threads.create_run",
                config={"configurable": {"thread_id": row.thread_id}},
                context=options.foreign_context,
            ),
            graph.spec,
            graph_input,
            identity=identity,
            thread_id=row.thread_id,
            locale=kwargs["locale"],
            model=kwargs["model"],
            metadata=kwargs["metadata"],
            tags=kwargs["tags"],
            modes=tuple(kwargs["modes"]),
            subgraphs=kwargs["subgraphs"],
            multitask_strategy=cast("MultitaskStrategy", row.multitask_strategy),
            on_start=hooks.on_start,
            on_finish=hooks.on_finish,
            key=kwargs["key"],
            run_id=row.id,
            is_stored=True,
            is_from_person=kwargs["is_from_person"],
            checkpoint=kwargs["checkpoint"],
            durability=kwargs["durability"],
            recursion_limit=kwargs["recursion_limit"],
            options=options,
        )


async def listen_to_nobody() -> BaseCallbackManager:
    """Return no callbacks, as the ``on_start`` of a run that nobody listens to."""
    return AsyncCallbackManager([])
