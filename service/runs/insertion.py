"""Insert runs, and refuse those that may neither begin nor wait."""

from core.errors import ThreadBusy
from service.runs.limits import RunQueue
from service.runs.request import RunRequest
from service.runs.rows import Added, NewRun
from service.runs.serialization import dump_request
from service.runs.store import RunStore
from service.runs.threads import no_such_thread


def build_run(request: RunRequest, *, after_seconds: float = 0) -> NewRun:
    """Return the row of a run.

    Args:
        request: The run.
        after_seconds: How long it waits at least.
    """
    options = request.options
    return NewRun(
        id=request.run_id,
        thread_id=request.thread_id,
        tenant=request.identity.tenant,
        user=request.identity.user,
        graph=request.graph.name,
        queue=request.queue,
        kwargs=dump_request(request),
        strategy=request.multitask_strategy,
        assistant_id=options.assistant_id or None,
        metadata=options.metadata,
        webhook=options.webhook or None,
        after_seconds=after_seconds,
        may_create_thread=options.may_create_thread,
    )


async def insert_run(store: RunStore, run: NewRun, queue: RunQueue, *, may_start: bool, held: bool) -> Added:
    """Insert a run.

    Args:
        store: The table of runs.
        run: The run.
        queue: Its limits.
        may_start: Whether this replica has a free slot for it.
        held: Whether a caller of this replica waits for it.

    Raises:
        NotFound: The thread is another tenant's, or there is none and the run may not create it.
        ThreadBusy: The thread has a run, and the strategy is ``reject``.
        TooManyRuns: Too many runs of the tenant wait.
    """
    added = await add_run(
        store,
        run,
        may_start=may_start,
        may_wait=run.strategy != "reject",
        places=queue.places,
        queue_length=queue.queue_length,
        held=held,
    )
    if added.status is None and added.ahead and run.strategy == "reject":
        raise ThreadBusy(
            f"thread {run.thread_id!r} has a run in progress; wait for it, or use "
            "multitask_strategy 'enqueue' or 'interrupt'",
            retry_after=1,
        )
    if added.status is None:
        raise queue.build_refusal(run.tenant)
    return added


async def add_run(
    store: RunStore,
    run: NewRun,
    *,
    may_start: bool,
    may_wait: bool,
    places: int | None,
    queue_length: int,
    held: bool = True,
) -> Added:
    """Add a run to its thread where it may be added; see :meth:`service.runs.store.RunStore.add`.

    Raises:
        NotFound: The thread is another tenant's, or there is none and the run may not create it.
    """
    while True:
        added = await store.add(
            run,
            may_start=may_start,
            may_wait=may_wait,
            places=places,
            queue_length=queue_length,
            held=held,
        )
        if added.owner != run.tenant and (added.owner or not run.may_create_thread):
            raise no_such_thread(run.thread_id)
        if added.owner and not added.is_conflict:
            return added
        # Another run was added to the thread, or the thread itself, at the same moment: look again.
