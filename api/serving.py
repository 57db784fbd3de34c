"""Run the service: one clear line when it cannot start, a drain when it is told to stop."""

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Iterator

import uvicorn
import uvloop
from fastapi import FastAPI

from api.application import make_app
from api.banner import banner
from api.service import Service, open_service
from core.errors import StartupError
from core.logging import configure_logging
from core.settings import ServerSettings, Settings

# Beyond the runs' own drain: time for streams to say goodbye.
GRACE_SECONDS = 5


def main() -> int:
    """Serve until SIGINT or SIGTERM.

    Returns:
        The exit code: 0 after a clean stop, 1 when the service could not start.
    """
    try:
        settings = Settings.load()
        configure_logging(settings.log)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_Serving(settings).run())
    except StartupError as error:
        for line in error.message.splitlines():
            print(f"error: {line}", file=sys.stderr)  # noqa: T201 - the operator's terminal
        return 1
    except asyncio.CancelledError:
        # Told to stop while it was starting; what had been started is stopped by now.
        return 1
    return 0


class _Serving:
    """One start of the service, from the first signal handler to the last thing closed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._server: UnsignalledServer | None = None
        self._service: Service | None = None
        self._task: asyncio.Task[None] | None = None

    async def run(self) -> None:
        self._task = asyncio.current_task()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop)
        with contextlib.closing(_listen(self._settings.server)) as listener:
            async with open_service(self._settings) as self._service:
                self._server = UnsignalledServer(self._config(make_app(self._service)))
                print(banner(self._service, _base_url(listener)), flush=True)  # noqa: T201
                await self._server.serve(sockets=[listener])

    def _config(self, app: FastAPI) -> uvicorn.Config:
        grace = int(self._settings.runs.drain_seconds + GRACE_SECONDS)
        return uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=grace)

    def _stop(self) -> None:
        """The first signal drains; a second does not wait for clients; while starting, starting ends."""
        if self._server and self._service:
            self._server.force_exit = self._server.should_exit
            self._server.should_exit = True
            self._service.runs.request_drain()
        elif self._task:
            self._task.cancel()


class UnsignalledServer(uvicorn.Server):
    """Uvicorn without signal handlers of its own: it would raise the signal again before we have closed."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to us."""
        yield


def _listen(settings: ServerSettings) -> socket.socket:
    """The bound socket, before anything else is started.

    Raises:
        StartupError: The port is in use, or the address is not this machine's.
    """
    try:
        return socket.create_server(
            (settings.host, settings.port),
            family=socket.AF_INET6 if ":" in settings.host else socket.AF_INET,
            backlog=2048,
        )
    except OSError as error:
        raise StartupError(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror or error}; "
            "stop what listens there, or set HOST and PORT"
        ) from error


def _base_url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{shown}:{port}"
