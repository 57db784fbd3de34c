"""The pool on the database the settings name: an external one, or the embedded one."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from checkpoints.embedded import embedded_postgres_server
from checkpoints.pool import WatchedPool, open_pool
from core.settings import DatabaseSettings


@asynccontextmanager
async def open_database(settings: DatabaseSettings, data_dir: Path) -> AsyncIterator[WatchedPool]:
    """Open the pool, and before it the embedded server where no other is named; close both with the context.

    Args:
        settings: Address, sizes and time limits.
        data_dir: Where the embedded server keeps its files.

    Raises:
        StartupError: The database cannot be started or reached.
    """
    async with AsyncExitStack() as stack:
        address = (
            settings.url.get_secret_value()
            if settings.url
            else await stack.enter_async_context(embedded_postgres_server(data_dir))
        )
        yield await stack.enter_async_context(open_pool(address, settings))
