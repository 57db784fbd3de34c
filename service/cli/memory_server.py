"""The embedded memory on its own, over gRPC: ``make memory-serve`` runs this."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import uvloop
from memory.grpc_server import serve_memory

from checkpoints.pool import open_database
from core.embeddings import build_embedder
from core.errors import StartupError
from core.logging import configure_logging
from core.settings import MemorySettings, Settings
from memory.embedded import open_embedded
from service.version import VERSION


def main() -> int:
    """Serve until SIGINT or SIGTERM.

    Returns:
        The exit code: 0 after a clean stop, 1 when the memory could not start.
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


@asynccontextmanager
async def serving_memory(settings: Settings) -> AsyncIterator[str]:
    """The embedded memory over gRPC, on a database of its own unless ``DATABASE_URL`` is set.

    Args:
        settings: What to open and where to listen.

    Yields:
        ``host:port``, for ``MEMORY_GRPC_TARGET``.

    Raises:
        StartupError: The database, the model, the port or the certificate cannot be used.
    """
    embedder = build_embedder(settings, "retrieval")
    async with AsyncExitStack() as stack:
        stack.push_async_callback(embedder.aclose)
        pool = await stack.enter_async_context(open_database(settings.database, data_dir(settings)))
        memory = await stack.enter_async_context(open_embedded(settings, pool, embedder))
        yield await stack.enter_async_context(serve_memory(memory, settings.memory))


def data_dir(settings: Settings) -> Path:
    """Beside the service's own, so that both run on one machine."""
    return settings.server.data_dir / "memory"


def banner(settings: Settings, address: str) -> str:
    """What the operator reads: what runs, and how a service is pointed at it."""
    database = "external (DATABASE_URL)" if settings.database.url else f"embedded, in {data_dir(settings)}"
    return "\n".join(
        [
            "",
            f"  Ventros memory {VERSION}",
            f"  listening   {address}  (gRPC, {_guarded(settings.memory)})",
            f"  database    {database}",
            "",
            "  point a service at it:",
            f"  {' '.join(_pointers(settings.memory, address))} make serve",
            "",
        ]
    )


def _guarded(memory: MemorySettings) -> str:
    tls = "TLS" if memory.serve_cert_file else "no TLS"
    return f"{tls}, {'a token' if memory.grpc_token else 'no token'}"


def _pointers(memory: MemorySettings, address: str) -> list[str]:
    pointers = [f"MEMORY_GRPC_TARGET={address}"]
    if memory.serve_cert_file:
        pointers.append("MEMORY_GRPC_TLS=true")
    if memory.grpc_token:
        pointers.append("MEMORY_GRPC_TOKEN=...")
    return pointers


async def _serve_until_told(settings: Settings) -> None:
    told = asyncio.Event()
    starting = asyncio.current_task()
    up = False

    def stop() -> None:
        told.set()
        if starting and not up:
            starting.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    async with serving_memory(settings) as address:
        up = True
        print(banner(settings, address), flush=True)  # noqa: T201 - the operator's terminal
        await told.wait()


if __name__ == "__main__":
    sys.exit(main())
