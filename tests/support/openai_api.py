"""A local server that speaks OpenAI's chat completions API, so that tests run the real adapter over a socket.

::

    async with openai_server() as server:
        server.enqueue(Text(["Hello", " there"]))
        models = build_chat_models(ModelSettings(model="openai:test"), features)  # OPENAI_BASE_URL=server.url

The responses are sent in the order in which they were enqueued. When the queue is empty, a request is
answered 400, which no caller retries.
"""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from tests.support.exchange import Exchange, Json, Raw, read_request


@dataclass(frozen=True, slots=True)
class Text:
    """A reply in pieces; ``finish_reason=None`` ends the stream without one."""

    pieces: Sequence[str]
    finish_reason: str | None = "stop"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of one tool, its arguments as the model wrote them."""

    name: str
    arguments: str
    finish_reason: str | None = "tool_calls"


@dataclass(frozen=True, slots=True)
class Refusal:
    """The model declines in the field that the API has for it."""

    text: str


@dataclass(frozen=True, slots=True)
class Error:
    """An error body; with ``in_stream``, as an event in the middle of the stream."""

    status: int
    message: str = "This is the message of the server."
    in_stream: bool = False


Response: TypeAlias = Text | ToolCall | Refusal | Error | Raw


class OpenAIServer:
    """The server; see the module."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[Json] = []
        self._queue: deque[Response] = deque()
        self._connections: set[asyncio.Task[Any]] = set()

    def enqueue(self, *responses: Response) -> None:
        """Append responses to the queue; each answers one request."""
        self._queue.extend(responses)

    def take_response(self) -> Response:
        """Return the response to the next request."""
        return self._queue.popleft() if self._queue else Error(400, "the test enqueued no response")

    def clear(self) -> None:
        """Remove the unused responses."""
        self._queue.clear()

    async def aclose(self) -> None:
        """Close the connections that are still open."""
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request, then close."""
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            _, _, body = await read_request(reader)
            self.requests.append(body)
            await _answer(Exchange(reader, writer), self.take_response())
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client went away: a test may well want that
        finally:
            self._connections.discard(task)
            writer.close()


@asynccontextmanager
async def openai_server(server: OpenAIServer | None = None) -> AsyncIterator[OpenAIServer]:
    """Run a server on a free port of the loopback interface."""
    server = server or OpenAIServer()
    listener = await asyncio.start_server(server.on_connection, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"
    try:
        yield server
    finally:
        listener.close()
        await server.aclose()


async def _answer(exchange: Exchange, response: Response) -> None:
    match response:
        case Raw():
            await exchange.send_raw(response)
        case Error(in_stream=False):
            await exchange.whole(response.status, {"error": {"message": response.message, "code": None}})
        case _:
            await exchange.send_raw(Raw(encode_events(_events(response))))


def encode_events(events: Iterator[Json]) -> bytes:
    """Return events as the API streams them, with its end mark."""
    return b"".join(f"data: {json.dumps(event)}\n\n".encode() for event in events) + b"data: [DONE]\n\n"


def _events(response: Text | ToolCall | Refusal | Error) -> Iterator[Json]:
    yield build_event({"role": "assistant", "content": None if isinstance(response, ToolCall) else ""})
    match response:
        case Text():
            for piece in response.pieces:
                yield build_event({"content": piece})
            if response.finish_reason is None:
                return
            yield build_event({}, response.finish_reason)
        case ToolCall():
            function = {"name": response.name, "arguments": response.arguments}
            yield build_event(
                {"tool_calls": [{"index": 0, "id": "call-1", "type": "function", "function": function}]}
            )
            yield build_event({}, response.finish_reason)
        case Refusal():
            yield build_event({"refusal": response.text})
            yield build_event({}, "stop")
        case Error():
            yield build_event({"content": '{"name": '})
            yield {"error": {"message": response.message, "type": "server_error", "code": response.status}}
            return
    usage = {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12}
    yield {**_ENVELOPE, "choices": [], "usage": usage}


_ENVELOPE: Json = {
    "id": "chatcmpl-1",
    "object": "chat.completion.chunk",
    "created": 1_760_000_000,
    "model": "test",
}


def build_event(delta: Json, finish_reason: str | None = None) -> Json:
    """Return one event of a stream."""
    return {**_ENVELOPE, "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}
