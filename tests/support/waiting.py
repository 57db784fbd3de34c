"""Wait for a condition instead of a fixed time."""

import asyncio
from collections.abc import Callable


async def until(condition: Callable[[], object]) -> None:
    """Return as soon as the condition holds; pytest's time limit ends a wait that never will."""
    while not condition():  # noqa: ASYNC110 - it watches what has no event
        await asyncio.sleep(0.001)
