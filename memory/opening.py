"""Which memory a service has: its own, or one over gRPC."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from core.embeddings import Embedder
from core.memory import Memory
from core.postgres import Pool
from core.settings import Settings
from memory import embedded
from memory.grpc_client import connect_memory
from memory.rerankers import open_reranker


@asynccontextmanager
async def open_memory(settings: Settings, pool: Pool, embedder: Embedder) -> AsyncIterator[Memory]:
    """The memory that ``MEMORY_GRPC_TARGET`` names, or else the embedded one, until the context closes.

    A memory over gRPC may be away: its calls then raise :class:`~core.errors.MemoryUnavailable`.

    Args:
        settings: Where the memory is, and how the embedded one works.
        pool: The service's pool, for the embedded one.
        embedder: For the embedded one; its owner closes it.

    Raises:
        StartupError: The file of authorities cannot be read.
        psycopg.Error: The embedded one's database cannot be reached, or refuses.
    """
    if settings.memory.grpc_target:
        async with connect_memory(settings.memory) as remote:
            yield remote
    else:
        async with open_embedded(settings, pool, embedder) as own:
            yield own


@asynccontextmanager
async def open_embedded(settings: Settings, pool: Pool, embedder: Embedder) -> AsyncIterator[Memory]:
    """The embedded memory, with the reranker the settings name; see :func:`open_memory`."""
    async with (
        open_reranker(settings) as reranker,
        embedded.open_memory(pool, embedder, reranker=reranker, settings=settings.memory) as own,
    ):
        yield own
