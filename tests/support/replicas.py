"""Two replicas on one database, in the test's own loop."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx

from core.settings import RunSettings
from tests.support.general_agent import replying, service
from tests.support.scripted import ScriptedChatModel
from tests.support.service import CONTACT, RunningService


class Replicas:
    """Two services on one database, each with a model of its own."""

    def __init__(
        self, first: RunningService, second: RunningService, models: list[ScriptedChatModel]
    ) -> None:
        self.first, self.second, self.models = first, second, models

    @property
    def prompts(self) -> int:
        """How often a model was asked."""
        return sum(len(model.prompts) for model in self.models)

    async def ask(self, up: RunningService, thread_id: str, **settings: Any) -> httpx.Response:
        """Ask ReAct at one of them; ``key`` is an idempotency key, the rest is ``configurable``."""
        key = settings.pop("key", "")
        return await up.http.post(
            "/react/invoke",
            json={
                "input": {"task": "Export fails.", "contact_id": CONTACT},
                "config": {"configurable": {**({"thread_id": thread_id} if thread_id else {}), **settings}},
            },
            headers={"Idempotency-Key": key} if key else {},
        )


@asynccontextmanager
async def two_replicas(database_url: str, **groups: Any) -> AsyncIterator[Replicas]:
    """Open two services whose claims are short."""
    models = [replying(), replying()]
    groups.setdefault("runs", RunSettings(claim_seconds=2))
    async with AsyncExitStack() as stack:
        first, second = [
            await stack.enter_async_context(service(database_url, model, **groups)) for model in models
        ]
        yield Replicas(first, second, models)


class Gate:
    """Holds a model back until it is opened."""

    def __init__(self, model: ScriptedChatModel) -> None:
        self.begun, self._open = asyncio.Event(), asyncio.Event()
        model.before_token = self._wait

    async def _wait(self) -> None:
        self.begun.set()
        await self._open.wait()

    def open(self) -> None:
        """Let the model answer."""
        self._open.set()
