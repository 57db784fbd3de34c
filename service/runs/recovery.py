"""Execute runs that no caller waits for: those whose replica died or stopped, and those that were queued."""

from collections.abc import Mapping
from typing import Any, Final, cast

from langchain_core.callbacks import AsyncCallbackManager, BaseCallbackManager

from core.deadline import restore_deadline
from core.errors import RunLost
from core.logging import get_logger
from core.settings import RunSettings
from service.errors import error_body
from service.queue import TaskQueue
from service.runs.executor import RunExecutor
from service.runs.graphs import GraphCatalogue
from service.runs.log.followers import KEEP_SECONDS
from service.runs.log.part_exchange import PartExchange
from service.runs.request import BuildHooks, MultitaskStrategy, RunRequest, build_run_request
from service.runs.rows import RunRow
from service.runs.serialization import load_identity, load_input, load_options
from service.runs.store import READY, RunStore

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
        exchange: Carries the parts of their streams between replicas.
        graphs: The graphs by name.
        build_hooks: Builds what happens around runs.
    """

    def __init__(
        self,
        store: RunStore,
        runs: RunExecutor,
        exchange: PartExchange,
        *,
        graphs: GraphCatalogue,
        build_hooks: BuildHooks,
    ) -> None:
        self._store = store
        self._runs = runs
        self._exchange = exchange
        self._graphs = graphs
        self._build_hooks = build_hooks
        self._keep_days = 0.0

    def schedule(self, queue: TaskQueue, settings: RunSettings) -> None:
        """Register the tasks that free the runs of silent replicas and delete old rows."""
        self._keep_days = settings.keep_days
        queue.every("requeue-runs", self.requeue, seconds=REQUEUE_SECONDS)
        queue.every("delete-ended-runs", self._delete_ended, seconds=_CLEANUP_SECONDS)
        queue.every("delete-run-parts", self._delete_parts, seconds=KEEP_SECONDS)

    async def execute(self, row: RunRow) -> None:
        """Execute a run that this replica holds to its end.

        Raises:
            ServiceError: It ended early, see :meth:`service.runs.executor.RunExecutor.stream`.
        """
        kwargs = row.kwargs or {}
        restore_deadline(kwargs["deadline"])
        await self._runs.run_to_end(await self._load(row, kwargs))

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

    async def _delete_parts(self) -> None:
        await self._exchange.delete_old(seconds=KEEP_SECONDS)

    async def _load(self, row: RunRow, kwargs: Mapping[str, Any]) -> RunRequest:
        graph, identity = self._graphs.find(row.graph), load_identity(row, kwargs)
        graph_input, options = load_input(kwargs), load_options(row, kwargs)
        hooks = self._build_hooks(
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
