"""Run a server process: load the settings, serve, and say in one line each why it cannot start."""

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from core.errors import StartupError
from core.fair_loop import FairLoop
from core.logging import configure_logging
from core.settings import Settings

Opened = TypeVar("Opened")


def run_until_stopped(serve: Callable[[Settings], Coroutine[Any, Any, None]]) -> int:
    """Run a server in an event loop until it ends, see :func:`report_exit`.

    Args:
        serve: Serves until a signal; cancelled by a signal during its start.
    """
    return report_exit(lambda settings: run_in_loop(serve(settings)))


def run_in_loop(serving: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine to its end in an event loop of its own."""
    with asyncio.Runner(loop_factory=FairLoop) as runner:
        runner.run(serving)


def report_exit(serve: Callable[[Settings], None]) -> int:
    """Load the settings, serve, and print why the server could not start.

    Returns:
        The exit code: 0 after a clean stop, 1 when the server could not start.
    """
    try:
        settings = Settings.load()
        configure_logging(settings.log)
        serve(settings)
    except StartupError as error:
        for line in error.message.splitlines():
            print(f"error: {line}", file=sys.stderr)  # noqa: T201 - the operator's terminal
        return 1
    except asyncio.CancelledError:
        # Stopped while it was starting; everything that had started is closed by now.
        return 1
    return 0


async def hold_open(opening: AbstractAsyncContextManager[Opened], announce: Callable[[Opened], None]) -> None:
    """Open something and hold it open until SIGINT or SIGTERM; a signal during the start ends the start.

    Args:
        opening: What is opened and, after the signal, closed.
        announce: Called when it is open.
    """
    stopped = asyncio.Event()
    start = asyncio.current_task()
    is_open = False

    def stop() -> None:
        stopped.set()
        if start and not is_open:
            start.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    async with opening as opened:
        is_open = True
        announce(opened)
        await stopped.wait()
