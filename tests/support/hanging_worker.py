"""A worker process that takes a job and hangs: ``python -m tests.support.hanging_worker URL``."""

import asyncio
import sys

from checkpoints.pool import open_pool
from core.settings import DatabaseSettings
from tests.support.queue import build_queue, working


async def main(url: str) -> None:
    """Work the queue until killed."""

    async def hang() -> None:
        print("began", flush=True)  # noqa: T201 - the test waits for it
        await asyncio.Event().wait()

    async with open_pool(url, DatabaseSettings(pool_min_size=1, pool_max_size=4)) as pool:
        queue = build_queue(pool, concurrency=1, stalled_seconds=1)
        queue.register("work", hang)
        async with working(queue):
            await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
