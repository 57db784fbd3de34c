"""A Postgres of a test's own, which the test may stop, kill and start again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from checkpoints import embedded
from checkpoints.embedded import embedded_postgres_server


@dataclass(frozen=True, slots=True)
class Database:
    """An embedded server that a test may stop."""

    url: str
    cluster: Path

    async def stop(self) -> None:
        await asyncio.to_thread(embedded._stop, self.cluster)

    async def kill(self) -> None:
        """Kill the server as the kernel does when memory is short."""
        pid = int((self.cluster / "postmaster.pid").read_text().splitlines()[0])
        process = psutil.Process(pid)
        process.kill()
        await asyncio.to_thread(process.wait)

    async def start(self) -> None:
        await asyncio.to_thread(embedded._start, self.cluster)


@asynccontextmanager
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with embedded_postgres_server(tmp_path) as url:
        yield Database(url, tmp_path / "postgres")
