"""The service's own memory behind a connection that a test can break or block."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal, cast

import pytest

from core.embeddings import Embedder
from core.errors import MemoryUnavailable
from core.memory import Memory
from core.postgres import Pool
from core.settings import Settings
from core.tasks import Scheduler, Supervisor
from memory.embedded import open_configured_memory


class Line:
    """Wraps a memory: passes calls on, refuses them, or lets them hang."""

    def __init__(self) -> None:
        self.state: Literal["up", "down", "hanging"] = "up"
        self.calls: list[str] = []
        self.memory: Memory | None = None

    def __getattr__(self, name: str) -> Any:
        async def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append(name)
            if self.state == "down":
                raise MemoryUnavailable("the line is cut")
            if self.state == "hanging":
                await asyncio.Event().wait()
            return await getattr(self.memory, name)(*args, **kwargs)

        return call


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Line:
    """Return the connection that the test's services have to their memory."""
    made = Line()

    @asynccontextmanager
    async def opened(
        settings: Settings, pool: Pool, embedder: Embedder, tasks: Supervisor, scheduler: Scheduler
    ) -> AsyncIterator[Memory]:
        async with open_configured_memory(settings, pool, embedder, tasks, scheduler) as memory:
            made.memory = memory
            yield cast("Memory", made)

    monkeypatch.setattr("service.graph_deps.open_configured_memory", opened)
    return made
