"""Serve in this process: say in one line why it cannot start, and drain it when it is told to stop."""

import asyncio
import contextlib
import gc
import json
import shlex
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import uvicorn

from core.embeddings import embedder_kind
from core.errors import StartupError
from core.models import ChatModels
from core.settings import Settings
from graphs.registry import REGISTRY
from service.app import create_app
from service.cli.console import get_console_url
from service.lifespan import Service, open_service
from service.middleware.authentication import is_loopback
from service.observability.peers import Peers, write_metrics
from service.routes.health import describe_health
from service.runs.graphs import ForeignGraph
from service.version import VERSION

# After the runs have drained: time for streams to send their last event.
GRACE_SECONDS = 5
# Thresholds of the garbage collector: new objects between two collections of the youngest generation, and
# collections of it between two of the older ones.
GC_THRESHOLDS = (20_000, 20, 20)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What one of several processes is given by the supervisor that started it.

    Attributes:
        listener: The bound socket that all of them accept connections from.
        embedded_url: The embedded Postgres; ``None``: the settings name a database.
        peers: The processes.
    """

    listener: socket.socket
    embedded_url: str | None
    peers: Peers


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningServer:
    """A running server.

    Attributes:
        url: Where it listens.
        service: The service behind it.
        server: Uvicorn's server; ``should_exit`` stops it.
        ended: Done when it has stopped listening.
    """

    url: str
    service: Service
    server: uvicorn.Server
    ended: asyncio.Task[None]

    def stop(self) -> None:
        """Announce the stop, then drain and stop; called a second time, do not wait."""
        lifecycle = self.service.lifecycle
        notice = 0.0 if lifecycle.is_stopping else self.service.settings.server.shutdown_notice_seconds
        lifecycle.is_stopping = True
        if notice:
            asyncio.get_running_loop().call_later(notice, self._stop_after_notice)
        else:
            self.stop_now()

    def _stop_after_notice(self) -> None:
        # Unless it was stopped a second time meanwhile.
        if not self.server.should_exit:
            self.stop_now()

    def stop_now(self) -> None:
        """Drain and stop; called a second time, do not wait for clients."""
        self.server.force_exit = self.server.should_exit
        self.server.should_exit = True
        self.service.queue.stop()
        # Runs that take too long are cancelled while their clients are still connected.
        self.service.runs.begin_drain()


@asynccontextmanager
async def open_server(
    settings: Settings,
    models: ChatModels | None = None,
    shared: Shared | None = None,
    foreign: Sequence[ForeignGraph] = (),
) -> AsyncIterator[RunningServer]:
    """Listen, open the service and serve it; when the context closes, drain and close everything.

    Args:
        settings: What to open and where to listen.
        models: Replace the models the settings name.
        shared: What this process has in common with others that serve the same port.
        foreign: Graphs to serve that are not of the registry.

    Raises:
        StartupError: The address requires authentication, or the port or a dependency is not available.
    """
    grace = int(settings.runs.finish_seconds + settings.runs.drain_seconds + GRACE_SECONDS)
    async with AsyncExitStack() as stack:
        listener = stack.enter_context(contextlib.closing(shared.listener if shared else listen(settings)))
        peers, embedded_url = (shared.peers, shared.embedded_url) if shared else (None, None)
        opened = open_service(
            settings, models=models, embedded_url=embedded_url, peers=peers, foreign=foreign
        )
        async with opened as service:
            app = create_app(service)
            config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=grace)
            server = ServerWithoutSignals(config)
            ended = asyncio.create_task(server.serve(sockets=[listener]))
            running = RunningServer(url=base_url(listener), service=service, server=server, ended=ended)
            try:
                async with _answer_peers(service):
                    yield running
            finally:
                if not ended.done():
                    running.stop()
                await ended


async def serve_until_signal(
    settings: Settings,
    *,
    models: ChatModels | None = None,
    shared: Shared | None = None,
    foreign: Sequence[ForeignGraph] = (),
    announce: Callable[[RunningServer], None] | None = None,
    watch: Callable[[Callable[[], None]], None] | None = None,
) -> None:
    """Serve until a signal: the first one drains, a second does not wait; during start, it ends the start.

    Args:
        settings: What to open and where to listen.
        models: Replace the models the settings name.
        shared: What this process has in common with others that serve the same port.
        foreign: Graphs to serve that are not of the registry.
        announce: Called when the server is ready; by default, the startup message is printed.
        watch: Called with what stops the server, before it starts.
    """
    start = asyncio.current_task()
    running: RunningServer | None = None

    def stop() -> None:
        if running:
            running.stop()
        elif start:
            start.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    if watch:
        watch(stop)
    async with open_server(settings, models, shared, foreign) as opened:
        running = opened
        tune_garbage_collector()
        (announce or print_startup_message)(opened)
        await opened.ended


def print_startup_message(running: RunningServer) -> None:
    """Print what the operator reads."""
    print(build_startup_message(running.service, running.url), flush=True)  # noqa: T201


def tune_garbage_collector() -> None:
    """Exclude objects that live as long as the process from garbage collection, and collect less often.

    Imports create about half a million objects. A full collection would examine them all, which takes a tenth
    of a second under load.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


class ServerWithoutSignals(uvicorn.Server):
    """Uvicorn without signal handlers: its own raise the signal again before the service is closed."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to this module."""
        yield


def listen(settings: Settings) -> socket.socket:
    """Return the bound socket, before anything else is started.

    Raises:
        StartupError: The address requires authentication or is not this machine's, or the port is in use.
    """
    host, port = settings.server.host, settings.server.port
    if not (settings.auth.enabled or is_loopback(host)):
        raise StartupError(
            f"HOST={host} requires authentication, without which anyone who reaches the port "
            "may do everything: set AUTH_API_KEYS=true (`make keys` creates keys) or AUTH_JWT_JWKS_URL"
        )
    try:
        listener = socket.create_server(
            (host, port),
            family=socket.AF_INET6 if ":" in host else socket.AF_INET,
            backlog=2048,
        )
    except OSError as error:
        raise StartupError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; "
            "stop what listens there, or set HOST and PORT"
        ) from error
    # Connections inherit the option. Without it, a response's body waits up to 40 ms for the client's
    # acknowledgement of the headers; uvloop sets it on each connection, asyncio's event loop does not.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


@asynccontextmanager
async def _answer_peers(service: Service) -> AsyncIterator[None]:
    """Answer the other processes that serve the same port, if there are any."""

    async def tell_health() -> str:
        return json.dumps(await describe_health(service))

    async def tell_metrics() -> str:
        return write_metrics(service.metrics.registry)

    if service.peers is None:
        yield
        return
    async with service.peers.answer({"health": tell_health, "metrics": tell_metrics}):
        yield


def base_url(listener: socket.socket) -> str:
    """Return the address of a listening socket as a client on this machine writes it."""
    host, port = listener.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{shown}:{port}"


def build_startup_message(service: Service, base_url: str) -> str:
    """Return what the operator reads: the model and why, the database, where to look, and a curl command."""
    settings = service.settings
    data_dir = settings.server.data_dir
    database = "external (DATABASE_URL)" if settings.database.url else f"embedded, in {data_dir}"
    crm = settings.crm.api_base or f"development CRM, {base_url}/crm"
    console = get_console_url(settings) or "none (`make serve` starts it, `make console` runs it alone)"
    playgrounds = "  ".join(f"{base_url}/{name}/playground/" for name in REGISTRY)
    router = service.agents.router
    example = json.dumps({"input": REGISTRY["react"].example})
    return f"""
  Ventros Agents {VERSION}
  model       {service.model.model}  ({service.model.why})
  routing     {len(service.agents.specs)} agents, by {router.model} ({embedder_kind(router.model)})
  graphs      {", ".join(REGISTRY)}
  database    {database}
  CRM         {crm}
  console     {console}
  docs        {base_url}/docs
  playground  {playgrounds}

  try it:
  curl -s {base_url}/react/invoke -H 'Content-Type: application/json' \\
    -d {shlex.quote(example)}
"""
