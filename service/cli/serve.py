"""Run the service: one clear line when it cannot start, a drain when it is told to stop."""

import asyncio
import contextlib
import gc
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import uvicorn
import uvloop

from core.errors import StartupError
from core.logging import configure_logging
from core.models import ChatModels
from core.settings import ServerSettings, Settings
from service.app import make_app
from service.cli.serve import banner
from service.lifespan import Service, open_service
from service.middleware.locality import is_loopback

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
            runner.run(_serve_until_told(settings))
    except StartupError as error:
        for line in error.message.splitlines():
            print(f"error: {line}", file=sys.stderr)  # noqa: T201 - the operator's terminal
        return 1
    except asyncio.CancelledError:
        # Told to stop while it was starting; what had been started is stopped by now.
        return 1
    return 0


# New objects between two collections of the youngest, and how many of those between two of the next ones.
COLLECT_AFTER = (20_000, 20, 20)


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """A service that is up.

    Attributes:
        url: Where it listens.
        service: What is inside.
        server: Uvicorn's; ``should_exit`` stops it.
        ended: Done when it has stopped listening.
    """

    url: str
    service: Service
    server: uvicorn.Server
    ended: asyncio.Task[None]

    def stop(self) -> None:
        """Say that the service is leaving, then drain and stop; asked a second time, wait for nobody."""
        lifecycle = self.service.lifecycle
        notice = 0.0 if lifecycle.is_leaving else self.service.settings.server.shutdown_notice_seconds
        lifecycle.is_leaving = True
        if notice:
            asyncio.get_running_loop().call_later(notice, self._after_notice)
        else:
            self.stop_now()

    def _after_notice(self) -> None:
        # Unless it was told a second time meanwhile.
        if not self.server.should_exit:
            self.stop_now()

    def stop_now(self) -> None:
        """Drain and stop; asked a second time, do not wait for clients."""
        self.server.force_exit = self.server.should_exit
        self.server.should_exit = True
        # Runs that take too long are cancelled while their clients can still be told.
        self.service.runs.begin_drain()


@asynccontextmanager
async def serving(settings: Settings, models: ChatModels | None = None) -> AsyncIterator[Serving]:
    """Listen, open the service and serve it; when the context closes, drain and close everything.

    Args:
        settings: What to open and where to listen.
        models: Stand instead of those the settings name.

    Raises:
        StartupError: The address needs authentication, or the port or something the service needs is not to
            be had.
    """
    _require_guarded(settings)
    grace = int(settings.runs.drain_seconds + GRACE_SECONDS)
    with contextlib.closing(_listen(settings.server)) as listener:
        async with open_service(settings, models=models) as service:
            app = make_app(service)
            config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=grace)
            server = UnsignalledServer(config)
            ended = asyncio.create_task(server.serve(sockets=[listener]))
            up = Serving(url=_base_url(listener), service=service, server=server, ended=ended)
            try:
                yield up
            finally:
                if not ended.done():
                    up.stop()
                await ended


async def _serve_until_told(settings: Settings) -> None:
    """Serve until a signal: the first drains, a second does not wait, and while starting, starting ends."""
    starting = asyncio.current_task()
    up: Serving | None = None

    def stop() -> None:
        if up:
            up.stop()
        elif starting:
            starting.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    async with serving(settings) as opened:
        up = opened
        spare_what_stays()
        print(banner(up.service, up.url), flush=True)  # noqa: T201 - the operator's terminal
        await up.ended


def spare_what_stays() -> None:
    """Have the garbage collector leave alone what lives as long as the process, and come less often.

    What was imported is some half a million objects, which each full collection would look through, a tenth
    of a second at a time under load.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)


class UnsignalledServer(uvicorn.Server):
    """Uvicorn without signal handlers of its own: it would raise the signal again before we have closed."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to us."""
        yield


def _require_guarded(settings: Settings) -> None:
    if not (settings.auth.enabled or is_loopback(settings.server.host)):
        raise StartupError(
            f"HOST={settings.server.host} needs authentication, without which whoever reaches the port may "
            "do everything: set AUTH_API_KEYS=true (`make keys` makes keys) or AUTH_JWT_JWKS_URL"
        )


def _listen(settings: ServerSettings) -> socket.socket:
    """The bound socket, before anything else is started.

    Raises:
        StartupError: The port is in use, or the address is not this machine's.
    """
    try:
        listener = socket.create_server(
            (settings.host, settings.port),
            family=socket.AF_INET6 if ":" in settings.host else socket.AF_INET,
            backlog=2048,
        )
    except OSError as error:
        raise StartupError(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror or error}; "
            "stop what listens there, or set HOST and PORT"
        ) from error
    # Connections inherit it. Without, a response's body waits for the client's acknowledgement of its head,
    # up to 40 ms, where the event loop does not see to it (asyncio's does not, uvloop does).
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _base_url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{shown}:{port}"
