"""Serve the embedded memory on its own over gRPC: ``make memory-serve``."""

import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from checkpoints.pool import open_database
from core.embeddings import VectorCache, build_embedder
from core.settings import MemorySettings, Settings
from memory.embedded import open_embedded
from memory.grpc_server import serve_memory
from service.cli.running import hold_open, run_until_stopped
from service.version import VERSION


def main() -> int:
    """Serve until SIGINT or SIGTERM; see :func:`service.cli.running.run_until_stopped`."""
    return run_until_stopped(_serve_until_signal)


@asynccontextmanager
async def open_memory_server(settings: Settings) -> AsyncIterator[str]:
    """Serve the embedded memory over gRPC, on a database of its own unless ``DATABASE_URL`` is set.

    Args:
        settings: What to open and where to listen.

    Yields:
        ``host:port``, for ``MEMORY_GRPC_TARGET``.

    Raises:
        StartupError: The database, the model, the port or the certificate cannot be used.
    """
    embedder = build_embedder(settings, "retrieval", cache=VectorCache())
    async with AsyncExitStack() as stack:
        stack.push_async_callback(embedder.aclose)
        pool = await stack.enter_async_context(open_database(settings.database, _find_data_dir(settings)))
        memory = await stack.enter_async_context(open_embedded(settings, pool, embedder))
        yield await stack.enter_async_context(serve_memory(memory, settings.memory))


def _find_data_dir(settings: Settings) -> Path:
    """Return a directory beside the service's own, so that both run on one machine."""
    return settings.server.data_dir / "memory"


def build_startup_message(settings: Settings, address: str) -> str:
    """Return what the operator reads: where the memory listens, and how to point a service at it."""
    database = (
        "external (DATABASE_URL)" if settings.database.url else f"embedded, in {_find_data_dir(settings)}"
    )
    return "\n".join(
        [
            "",
            f"  Ventros memory {VERSION}",
            f"  listening   {address}  (gRPC, {_describe_security(settings.memory)})",
            f"  database    {database}",
            "",
            "  point a service at it:",
            f"  {' '.join(_build_assignments(settings.memory, address))} make serve",
            "",
        ]
    )


def _describe_security(memory: MemorySettings) -> str:
    tls = "TLS" if memory.serve_cert_file else "no TLS"
    return f"{tls}, {'a token' if memory.grpc_token else 'no token'}"


def _build_assignments(memory: MemorySettings, address: str) -> list[str]:
    assignments = [f"MEMORY_GRPC_TARGET={address}"]
    if memory.serve_cert_file:
        assignments.append("MEMORY_GRPC_TLS=true")
    if memory.grpc_token:
        assignments.append("MEMORY_GRPC_TOKEN=...")
    return assignments


async def _serve_until_signal(settings: Settings) -> None:
    def announce(address: str) -> None:
        print(build_startup_message(settings, address), flush=True)  # noqa: T201 - the operator's terminal

    await hold_open(open_memory_server(settings), announce)


if __name__ == "__main__":
    sys.exit(main())
