"""Savers that tests open on demand, and that close with their pool."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from checkpoints.saver import GroupCommitSaver, open_saver
from core.postgres import Pool

_STACKS: dict[Pool, AsyncExitStack] = {}


@asynccontextmanager
async def closing_savers(pool: Pool) -> AsyncIterator[None]:
    """Close the savers that :func:`saver_on` opened on the pool."""
    async with AsyncExitStack() as stack:
        _STACKS[pool] = stack
        try:
            yield
        finally:
            del _STACKS[pool]


async def saver_on(pool: Pool) -> GroupCommitSaver:
    """Open a saver that lives as long as the ``pool`` fixture."""
    return await _STACKS[pool].enter_async_context(open_saver(pool))
