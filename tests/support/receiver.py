"""A receiver of webhooks: it verifies signatures with the specification's own library, and can misbehave."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from standardwebhooks import Webhook, WebhookVerificationError

from tests.support.waiting import until


@dataclass(slots=True)
class Receiver:
    """A running receiver.

    Attributes:
        url: Where it takes webhooks.
        keys: Secrets of which one must have signed.
        answer: Returns the status for an event; called for each that is signed.
        gate: Held back until it is set.
        attempts: Every signed event that came, in order.
        received: Those that were answered with success.
        refused: How many were not signed.
    """

    url: str = ""
    keys: list[str] = field(default_factory=list)
    answer: Callable[[dict[str, Any]], int] = lambda _: 200
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    attempts: list[dict[str, Any]] = field(default_factory=list)
    received: list[dict[str, Any]] = field(default_factory=list)
    refused: int = 0

    @property
    def host(self) -> str:
        """The host as WEBHOOK_ALLOWED_HOSTS names it."""
        return self.url.removeprefix("http://").partition("/")[0]

    def list_sequences(self, thread_id: str) -> list[int]:
        """Return the sequences of a thread's events as they were received."""
        return [int(event["sequence"]) for event in self.received if event.get("subject") == thread_id]

    async def until_received(self, count: int) -> list[dict[str, Any]]:
        """Return what was received as soon as there is so much."""
        await until(lambda: len(self.received) >= count)
        return self.received

    async def take(self, request: Request) -> Response:
        """Answer a webhook."""
        body = await request.body()
        if not any(_is_signed(key, body, dict(request.headers)) for key in self.keys):
            self.refused += 1
            return Response(status_code=401)
        event: dict[str, Any] = json.loads(body)
        assert event["id"] == request.headers["webhook-id"]
        self.attempts.append(event)
        await self.gate.wait()
        status = self.answer(event)
        if status < 300:
            self.received.append(event)
        return Response(status_code=status)


def _is_signed(key: str, body: bytes, headers: dict[str, str]) -> bool:
    try:
        Webhook(key).verify(body, headers)
    except WebhookVerificationError:
        return False
    return True


@asynccontextmanager
async def webhook_receiver() -> AsyncIterator[Receiver]:
    """Serve in this event loop on a free port."""
    receiver = Receiver()
    receiver.gate.set()
    app = FastAPI()
    app.post("/hooks")(receiver.take)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, lifespan="off", ws="none"))
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    receiver.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/hooks"
    yield receiver
    receiver.gate.set()
    server.should_exit = True
    await serving
