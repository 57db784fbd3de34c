"""Background tasks: a loop that repeats a pass, and a supervisor that restarts tasks that die.

What need not be done by each process is done by the task queue, which is handed in as a :class:`Scheduler`.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, Protocol, TypeAlias

from core.logging import get_logger
from core.postgres import DATABASE_UNAVAILABLE

log = get_logger(__name__)

TaskState: TypeAlias = Literal["running", "failing", "restarting", "finished"]

# Between two attempts to cancel a task: much longer than one needs to end.
CANCEL_AGAIN_SECONDS: Final = 0.5
# Pauses differ by up to this share, so that replicas that started together do not stay in step.
JITTER: Final = 0.2


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses that double with each failure in a row.

    Attributes:
        first: Seconds after the first failure.
        longest: Seconds that no pause exceeds, jitter aside.
    """

    first: float
    longest: float

    def pause(self, failures: int) -> float:
        """Return the pause in seconds, without jitter, after so many failures in a row (at least one)."""
        # The exponent is bounded: 2.0 ** 1100 overflows.
        return min(self.longest, self.first * 2.0 ** min(failures - 1, 60))


@dataclass(slots=True)
class TaskStatus:
    """What ``/health`` reports of a background task.

    Attributes:
        state: ``running``; ``failing``: it runs, but its latest pass failed; ``restarting``: it died and
            waits for its restart; ``finished``: it returned by itself.
        restarts: How often it was restarted after it had died.
        last_error: Type of the last exception, for operators; the log has its message. Empty: none so far.
    """

    state: TaskState = "running"
    restarts: int = 0
    last_error: str = ""


_status: ContextVar[TaskStatus | None] = ContextVar("status of the current background task", default=None)


def current_status() -> TaskStatus:
    """Return the status of the background task that calls, to be changed by it."""
    return _status.get() or TaskStatus()


class Scheduler(Protocol):
    """Repeats passes, each of them at one place in the whole deployment."""

    def every(self, name: str, run_pass: Callable[[], Awaitable[object]], *, seconds: float) -> None:
        """Have a pass repeated, whatever a single pass raises.

        Args:
            name: Of the task, in logs and metrics; at most 40 characters.
            run_pass: One pass; what it returns is ignored. It may be cut off and repeated.
            seconds: From the start of one pass to that of the next. A pass that takes longer delays the next.
        """
        ...


async def periodic(
    name: str,
    run_pass: Callable[[], Awaitable[object]],
    *,
    seconds: float,
    jitter: float = JITTER,
    at_once: bool = False,
    wake: asyncio.Event | None = None,
    backoff: Backoff | None = None,
    unavailable: tuple[type[Exception], ...] = DATABASE_UNAVAILABLE,
) -> None:
    """Repeat a pass until cancelled, whatever a single pass raises.

    A pass that fails because something it needs is unavailable is logged as a warning, once for each outage.
    Any other exception is logged with its traceback: it is a bug, and the next pass may still succeed.

    Args:
        name: Of the task, in logs.
        run_pass: One pass; what it returns is ignored.
        seconds: Pause between two passes.
        jitter: Share by which a pause may be shorter or longer. 0: none.
        at_once: Whether the first pass comes at once rather than after the first pause.
        wake: Starts the next pass before the pause is over when it is set; the loop clears it before a pass.
        backoff: Pauses after passes that failed; ``wake`` does not end them. ``None``: the usual pause.
        unavailable: Exception types that mean that something the pass needs cannot be reached.
    """
    status = current_status()
    failures, is_outage = 0, False
    if not at_once:
        await _pause(seconds, jitter, wake)
    while True:
        if wake:
            wake.clear()
        try:
            await run_pass()
        except Exception as error:
            failures, status.state, status.last_error = failures + 1, "failing", type(error).__name__
            if not isinstance(error, unavailable):
                log.exception("background_pass_failed", task=name)
            elif not is_outage:
                log.warning("background_task_waits", task=name, reason=str(error).strip())
            is_outage = isinstance(error, unavailable)
        else:
            if failures:
                log.info("background_task_recovered", task=name, failed_passes=failures)
            failures, is_outage, status.state = 0, False, "running"
        if failures and backoff:
            await _pause(backoff.pause(failures), jitter, None)
        else:
            await _pause(seconds, jitter, wake)


class Supervisor:
    """Runs the background tasks of a process, and restarts those that die.

    Args:
        backoff: Pauses before restarts. They start afresh once a task has run for longer than the longest.
        clock: Seconds that only grow.
    """

    def __init__(
        self, backoff: Backoff = Backoff(first=1, longest=60), *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._backoff = backoff
        self._clock = clock
        self._statuses: dict[str, TaskStatus] = {}

    def statuses(self) -> Mapping[str, TaskStatus]:
        """Return a copy of the status of every task whose context is open, by name."""
        return {name: replace(status) for name, status in self._statuses.items()}

    @asynccontextmanager
    async def supervise(
        self, name: str, start: Callable[[], Awaitable[None]]
    ) -> AsyncIterator[asyncio.Task[None]]:
        """Run a task while the context is open.

        Args:
            name: Of the task, in logs and in its status; unique among the tasks that are running.
            start: Does the work; called again for each restart. A task that returns is not restarted.

        Raises:
            ValueError: A task of this name is running.
        """
        if name in self._statuses:
            raise ValueError(f"a background task {name!r} is running already")
        status = self._statuses[name] = TaskStatus()
        task = asyncio.create_task(self._keep_running(name, start, status), name=name)
        try:
            yield task
        finally:
            await cancel_and_wait(task)
            del self._statuses[name]

    async def _keep_running(
        self, name: str, start: Callable[[], Awaitable[None]], status: TaskStatus
    ) -> None:
        _status.set(status)
        failures = 0
        while True:
            started = self._clock()
            try:
                await start()
            except Exception as error:
                if self._clock() - started > self._backoff.longest:
                    failures = 0
                failures += 1
                pause = self._backoff.pause(failures)
                status.state, status.last_error = "restarting", type(error).__name__
                log.exception("background_task_died", task=name, restart_in_seconds=pause)
            else:
                status.state = "finished"
                return
            await _pause(pause, JITTER, None)
            status.restarts += 1
            status.state = "running"


async def _pause(seconds: float, jitter: float, wake: asyncio.Event | None) -> None:
    seconds *= random.uniform(1 - jitter, 1 + jitter)  # noqa: S311 - no secret
    if wake is None:
        await asyncio.sleep(seconds)
        return
    try:
        async with asyncio.timeout(seconds):
            await wake.wait()
    except TimeoutError:
        return


async def cancel_and_wait(task: asyncio.Task[Any]) -> None:
    """Cancel a task and return when it has ended; an exception of the task is not raised.

    One cancellation may not be enough: ``asyncio.wait_for`` of Python 3.11, with which the database's pool
    waits, loses a cancellation that arrives together with the result it waits for.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=CANCEL_AGAIN_SECONDS)


@asynccontextmanager
async def background(work: Coroutine[Any, Any, None], name: str) -> AsyncIterator[asyncio.Task[None]]:
    """Run a coroutine while the context is open; if it dies, log that. Prefer :class:`Supervisor`."""
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(_log_death)
    try:
        yield task
    finally:
        await cancel_and_wait(task)


def _log_death(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        log.error("background_task_died", task=task.get_name(), exc_info=error)
