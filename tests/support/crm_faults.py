"""A CRM with scripted answers, and the development CRM behind a network that loses an answer.

::

    async with scripted_crm(Answer(429, {"message": "slow down"}), Answer(200, STATUS)) as server:
        async with crm_client(server.url) as crm:
            await crm.get_status()
    assert len(server.requests) == 2

The answers are sent in order, one per connection. When none is left, a request is answered 418, which no
caller repeats.
"""

import asyncio
import json
import socket
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import httpx
import uvicorn
from pydantic import SecretStr
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.settings import CrmSettings
from service.cli.serve import ServerWithoutSignals
from tools.crm.client import CrmClient, create_http_client

KEY = "a-key-for-tests"
LAURA = "550e8400-e29b-41d4-a716-446655440000"
NOBODY = "00000000-0000-4000-8000-000000000000"


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A request of the client; ``target`` is the path as it was on the wire, with the query."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: Any


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer. A ``body`` of text is sent as it is, any other as JSON."""

    status: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Dropped:
    """The connection closes after ``sent``, before the announced end of the body."""

    sent: bytes = b""


@dataclass(frozen=True, slots=True)
class Silence:
    """No answer; the connection stays open until the client closes it."""


@dataclass(frozen=True, slots=True)
class Trickle:
    """An endless body, sent a byte at a time; no single read takes long enough to time out."""

    pause: float = 0.01


@dataclass(frozen=True, slots=True)
class Delayed:
    """An answer that waits until the test releases it."""

    answer: Answer
    received: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)


Scripted: TypeAlias = Answer | Dropped | Silence | Trickle | Delayed


class ScriptedCrm:
    """The server; see the module."""

    def __init__(self, *answers: Scripted) -> None:
        self.url = ""
        self.requests: list[Received] = []
        self._answers = deque(answers)
        self._connections: set[asyncio.Task[None]] = set()

    async def on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request, then close."""
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            self.requests.append(await _received(reader))
            answer = self._answers.popleft() if self._answers else Answer(418, {"message": "no answer left"})
            await _give(answer, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client went away: a test may well want that
        finally:
            self._connections.discard(task)
            writer.close()

    async def aclose(self) -> None:
        """Close the connections that are still open."""
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)


@asynccontextmanager
async def scripted_crm(*answers: Scripted) -> AsyncIterator[ScriptedCrm]:
    """Run a server on a free port of the loopback interface that gives these answers."""
    server = ScriptedCrm(*answers)
    listener = await asyncio.start_server(server.on_connection, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listener.close()
        await server.aclose()


class LosesFirstAnswer:
    """ASGI middleware that closes the connection in place of the first answer, after the app did its work.

    Args:
        app: The application behind it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.lost: list[int] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.lost:
            await self._app(scope, receive, send)
            return
        await self._app(scope, receive, self._keep)
        # Less than was announced: the server closes the connection, as there is no way to go on.
        headers = [(b"content-length", b"1000")]
        await send({"type": "http.response.start", "status": 201, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"id": "', "more_body": True})

    async def _keep(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.lost.append(message["status"])


@asynccontextmanager
async def served(app: ASGIApp) -> AsyncIterator[str]:
    """Serve the app on a free port of the loopback interface, in the test's event loop."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = ServerWithoutSignals(uvicorn.Config(app, log_config=None, lifespan="off", ws="none"))
        ended = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await ended


def crm_settings(**settings: Any) -> CrmSettings:
    """Return settings with the tests' key."""
    return CrmSettings(api_key=SecretStr(KEY), **settings)


@asynccontextmanager
async def crm_client(
    url: str = "http://crm", transport: httpx.AsyncBaseTransport | None = None, **settings: Any
) -> AsyncIterator[CrmClient]:
    """Open a client as the service does, without pauses between attempts."""
    chosen = crm_settings(**settings)
    async with create_http_client(chosen, url, transport) as http:
        yield CrmClient(http, chosen, first_pause=0)


def closed_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


async def _received(reader: asyncio.StreamReader) -> Received:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    method, target, _ = head[0].split(" ")
    headers = {
        name.strip().lower(): value.strip()
        for name, _, value in (line.partition(":") for line in head[1:] if line)
    }
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Received(method=method, target=target, headers=headers, body=json.loads(body) if body else None)


async def _give(answer: Scripted, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    match answer:
        case Answer():
            await _whole(answer, writer)
        case Dropped(sent=b""):
            pass
        case Dropped(sent=sent):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + sent)
            await writer.drain()
        case Silence():
            await reader.read()
        case Trickle(pause=pause):
            await _trickle(pause, writer)
        case Delayed():
            answer.received.set()
            await answer.released.wait()
            await _whole(answer.answer, writer)


async def _whole(answer: Answer, writer: asyncio.StreamWriter) -> None:
    text = answer.body if isinstance(answer.body, str) else json.dumps(answer.body)
    headers = {"Content-Length": len(text.encode()), "Connection": "close", **answer.headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    writer.write(f"HTTP/1.1 {answer.status} Any\r\n{lines}\r\n".encode("latin-1") + text.encode())
    await writer.drain()


async def _trickle(pause: float, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(pause)
