"""Background tasks that end when they are told to."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final

from core.logging import get_logger

log = get_logger(__name__)

# Between two tries to end a task: much longer than one needs to end.
AGAIN_SECONDS: Final = 0.5


async def ended(task: asyncio.Task[Any]) -> None:
    """Cancel a task and return when it has ended; what it raised is its own.

    Once may not be enough: ``asyncio.wait_for`` of Python 3.11, by which the database's pool waits, loses a
    cancellation that comes together with what was waited for.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=AGAIN_SECONDS)


@asynccontextmanager
async def background(work: Coroutine[Any, Any, None], name: str) -> AsyncIterator[asyncio.Task[None]]:
    """Work that goes on while the context is open; if it dies of itself, the log says so."""
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(_say_if_it_died)
    try:
        yield task
    finally:
        await ended(task)


def _say_if_it_died(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        log.error("background_task_died", task=task.get_name(), exc_info=error)
