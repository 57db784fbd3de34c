"""A local server that speaks the Gemini REST API, so that tests run the real adapter over a real socket.

::

    async with gemini_server() as server:
        server.enqueue(Error.rate_limited(), Text(["Hello", " there"]))
        models = chat_models(ModelSettings(google_api_key=KEY, google_base_url=server.url), features)
        ...
        assert [request.temperature for request in server.requests] == [0.2, 0.2]

The responses are sent in the order in which they were enqueued. When the queue is empty, a request is
answered 400 with a message that says so, which no caller retries.

``cachedContents`` needs no response in the queue: the server stores the content under a name. It rejects a
request with an unknown name, or with a system instruction or tools beside the name.

The same server speaks Vertex AI's API to a :class:`~tests.support.vertex.ServiceAccount`: it exchanges the
account's signed assertion for a token, and requests under ``/projects/`` need a token that it issued.
"""

import asyncio
import json
import re
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Self, TypeAlias

from pydantic import BaseModel

from tests.support.exchange import Exchange, Json, Raw, read_request
from tests.support.vertex import TOKEN_PATH, ServiceAccount

# The path, and here the method too, of a request to keep content.
CACHE = "cachedContents"
TOKEN = "token"

_VERTEX = re.compile(
    r"/v1beta1/(?P<parent>projects/[^/]+/locations/[^/]+)/"
    rf"(?:publishers/google/models/(?P<model>[^:/]+):(?P<method>\w+)|{CACHE})"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request of the adapter; ``parent`` is Vertex AI's ``projects/p/locations/l``."""

    parent: str = ""
    model: str
    method: str
    headers: Mapping[str, str]
    body: Json

    @property
    def config(self) -> Json:
        """``generationConfig``: temperature, thinkingConfig, responseMimeType, response schema."""
        return dict(self.body.get("generationConfig", {}))

    @property
    def temperature(self) -> float | None:
        return self.config.get("temperature")

    @property
    def thinking(self) -> str | int | None:
        """Level or budget of thinking; the SDK writes their names in snake case, the API reads either."""
        for value in self.config.get("thinkingConfig", {}).values():
            return value if isinstance(value, int) else str(value).lower()
        return None

    @property
    def system(self) -> str:
        """The text of the system instruction."""
        return _text_of(self.body.get("systemInstruction", {}))

    @property
    def cached_content(self) -> str:
        """The name of the cached content that the request continues; empty: none."""
        return str(self.body.get("cachedContent", ""))

    @property
    def contents(self) -> list[tuple[str, str]]:
        """Role and text of each turn."""
        return [(turn.get("role", "user"), _text_of(turn)) for turn in self.body["contents"]]

    @property
    def parts(self) -> list[Json]:
        """Parts of all turns: text, calls and their signatures, responses."""
        return [part for turn in self.body["contents"] for part in turn.get("parts", [])]

    @property
    def functions(self) -> dict[str, Json]:
        """Function declarations by name."""
        tools = self.body.get("tools", [])
        return {each["name"]: each for tool in tools for each in tool.get("functionDeclarations", [])}


@dataclass(frozen=True, slots=True)
class Text:
    """A reply of text, each piece an event of the stream."""

    pieces: Sequence[str]
    finish_reason: str = "STOP"


@dataclass(frozen=True, slots=True)
class FunctionCalls:
    """Calls of functions, all in one turn; ``text`` comes before them.

    Gemini 3 signs the first call (base64) and refuses a history that does not carry the signature.
    """

    calls: Sequence[tuple[str, Mapping[str, Any]]]
    text: str = ""
    signature: str = ""


@dataclass(frozen=True, slots=True)
class Structured:
    """The JSON of a value, in two pieces."""

    value: BaseModel | Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Malformed:
    """Text that is not JSON, or not the requested JSON."""

    text: str = '{"half": '


@dataclass(frozen=True, slots=True)
class Blocked:
    """A blocked prompt, or a reply that is withheld after ``pieces``."""

    where: Literal["prompt", "reply"] = "prompt"
    reason: str = "SAFETY"
    pieces: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Cut:
    """A reply whose connection closes after some pieces.

    ``drop``: the body stays unfinished; ``half_event``: that, within an event; ``silent``: HTTP ends
    properly, as when a gateway gives up, and only the finish reason is missing.
    """

    pieces: Sequence[str] = ()
    how: Literal["drop", "half_event", "silent"] = "drop"


@dataclass(frozen=True, slots=True)
class Vectors:
    """An embedding for each content, with the same numbers for all."""

    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class Silence:
    """No answer; the connection stays open until the client closes it."""


@dataclass(frozen=True, slots=True)
class Error:
    """An error body as Google sends it; with ``pieces``, as an event in the middle of the stream."""

    status: int
    reason: str
    message: str = "This is the message of the server."
    details: Sequence[Json] = ()
    pieces: Sequence[str] = ()

    @classmethod
    def rate_limited(cls, *, retry_seconds: float | None = 7) -> Self:
        """Return a 429 with RetryInfo."""
        info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{retry_seconds}s"}
        message = "You exceeded your current quota, please check your plan and billing details."
        details = [] if retry_seconds is None else [info]
        return cls(429, "RESOURCE_EXHAUSTED", message, details=details)

    @classmethod
    def overloaded(cls) -> Self:
        return cls(503, "UNAVAILABLE", "The model is overloaded. Please try again later.")

    @classmethod
    def internal(cls) -> Self:
        return cls(500, "INTERNAL", "An internal error has occurred.")

    @classmethod
    def invalid_key(cls) -> Self:
        """Return the 400 of Google for an unknown key."""
        info = {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": "API_KEY_INVALID",
            "domain": "googleapis.com",
            "metadata": {"service": "generativelanguage.googleapis.com"},
        }
        message = "API key not valid. Please pass a valid API key."
        return cls(400, "INVALID_ARGUMENT", message, details=[info])

    @classmethod
    def forbidden(cls) -> Self:
        return cls(
            403, "PERMISSION_DENIED", "Your API key was reported as leaked. Please use another API key."
        )

    @classmethod
    def unknown_model(cls, model: str) -> Self:
        return cls(404, "NOT_FOUND", f"models/{model} is not found for API version v1beta")


@dataclass(slots=True)
class Gated:
    """Pieces that the test releases: the first is sent at once, each :meth:`release` sends another."""

    pieces: Sequence[str]
    sent: int = 0
    started: asyncio.Event = field(default_factory=asyncio.Event)
    abandoned: asyncio.Event = field(default_factory=asyncio.Event)
    _gate: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))

    def release(self, pieces: int = 1) -> None:
        for _ in range(pieces):
            self._gate.release()

    async def passed(self) -> None:
        """Wait for the next release."""
        await self._gate.acquire()


Response: TypeAlias = (
    Text | FunctionCalls | Structured | Malformed | Blocked | Cut | Silence | Error | Gated | Vectors | Raw
)


class GeminiServer:
    """The server; see the module."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[Request] = []
        # By name. While there is an error, nothing is kept; while the gate is closed, nobody hears.
        self.cached: dict[str, Request] = {}
        self.creations = 0
        self.cache_error: Error | None = None
        self.cache_gate = asyncio.Event()
        self.cache_gate.set()
        # Who may call Vertex AI, the tokens that were issued, and the error instead of a token.
        self.account: ServiceAccount | None = None
        self.tokens: list[str] = []
        self.token_error: tuple[int, Json] | None = None
        self._queue: deque[Response] = deque()
        self._connections: set[asyncio.Task[None]] = set()

    def enqueue(self, *responses: Response) -> None:
        """Append responses to the queue; each answers one request."""
        self._queue.extend(responses)

    def clear(self) -> None:
        """Remove the unused responses."""
        self._queue.clear()

    @property
    def unasked(self) -> int:
        """The number of responses that are still in the queue."""
        return len(self._queue)

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
            request = await _read_request(reader)
            if request.method == TOKEN:
                await Exchange(reader, writer).whole(*self._issue_token(request))
                return
            if request.parent and request.headers.get("authorization") not in self._bearers:
                unknown = Error(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")
                await Exchange(reader, writer).whole(401, _error_body(unknown))
                return
            if request.method == CACHE:
                await Exchange(reader, writer).whole(*await self._kept(request))
                return
            self.requests.append(request)
            if refusal := self._refusal(request):
                await Exchange(reader, writer).whole(refusal.status, _error_body(refusal))
                return
            unexpected = Error(
                400, "INVALID_ARGUMENT", "the test put no response in the queue for this request"
            )
            response = self._queue.popleft() if self._queue else unexpected
            await _answer(Exchange(reader, writer), request, response)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client went away: a test may well want that
        finally:
            self._connections.discard(task)
            writer.close()

    async def _kept(self, request: Request) -> tuple[int, Json]:
        """Return the status and body of the answer to a ``cachedContents`` request."""
        self.creations += 1
        await self.cache_gate.wait()
        if self.cache_error:
            return self.cache_error.status, _error_body(self.cache_error)
        name = f"{request.parent}/{CACHE}/c{self.creations}".lstrip("/")
        self.cached[name] = request
        return 200, {"name": name, "model": request.body["model"], "displayName": "any"}

    @property
    def _bearers(self) -> set[str]:
        return {f"Bearer {token}" for token in self.tokens}

    def _issue_token(self, request: Request) -> tuple[int, Json]:
        """Return the status and body of the answer to a service account (RFC 7523)."""
        if self.token_error:
            return self.token_error
        if self.account is None or not self.account.has_signed(request.body):
            return 400, {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}
        self.tokens.append(f"ya29.token-{len(self.tokens) + 1}")
        return 200, {"access_token": self.tokens[-1], "expires_in": 3599, "token_type": "Bearer"}

    def _refusal(self, request: Request) -> Error | None:
        """Return Google's error for an unknown name, or for a name beside which there is more."""
        if not request.cached_content:
            return None
        if request.cached_content not in self.cached:
            return Error(403, "PERMISSION_DENIED", "CachedContent not found (or permission denied)")
        if {"systemInstruction", "tools", "toolConfig"} & request.body.keys():
            return Error(
                400,
                "INVALID_ARGUMENT",
                "CachedContent can not be used with GenerateContent request setting system_instruction, "
                "tools or tool_config.",
            )
        return None


@asynccontextmanager
async def gemini_server() -> AsyncIterator[GeminiServer]:
    """Run a server on a free port of the loopback interface."""
    server = GeminiServer()
    listener = await asyncio.start_server(server.on_connection, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listener.close()
        await server.aclose()


async def _read_request(reader: asyncio.StreamReader) -> Request:
    path, headers, body = await read_request(reader)
    if path == TOKEN_PATH:
        return Request(model="", method=TOKEN, headers=headers, body=body)
    if vertex := _VERTEX.fullmatch(path):
        model = vertex["model"] or body["model"].rpartition("/")[2]
        method = vertex["method"] or CACHE
        return Request(parent=vertex["parent"], model=model, method=method, headers=headers, body=body)
    if path == f"/v1beta/{CACHE}":
        return Request(model=body["model"].removeprefix("models/"), method=CACHE, headers=headers, body=body)
    model, _, method = path.removeprefix("/v1beta/models/").partition(":")
    return Request(model=model, method=method, headers=headers, body=body)


async def _answer(exchange: Exchange, request: Request, response: Response) -> None:
    model = request.model
    streamed = request.method == "streamGenerateContent"
    match response:
        case Error(pieces=[]):
            await exchange.whole(response.status, _error_body(response))
        case Vectors():
            await exchange.whole(200, _embeddings(response, request))
        case Silence():
            await exchange.client_gone()
        case Raw():
            await exchange.send_raw(response)
        case Cut() if not streamed:
            pass  # closed without a byte
        case Cut():
            await _cut(exchange, response, model)
        case Gated():
            await _gated(exchange, response, model)
        case _ if streamed:
            await exchange.start_events()
            for event in _events(response, model):
                await exchange.event(event)
            await exchange.end_events()
        case _:
            await exchange.whole(200, _merged(list(_events(response, model))))


def _embeddings(response: Vectors, request: Request) -> Json:
    values = {"values": list(response.values)}
    if request.parent:
        return {"predictions": [{"embeddings": values} for _ in request.body["instances"]]}
    return {"embeddings": [values for _ in request.body["requests"]]}


async def _cut(exchange: Exchange, response: Cut, model: str) -> None:
    await exchange.start_events()
    for event in _pieces(response.pieces, model, finish_reason=None):
        await exchange.event(event)
    if response.how == "half_event":
        await exchange.chunk(b'data: {"candidates": [{"content": {"par')
    if response.how != "drop":
        await exchange.end_events()


async def _gated(exchange: Exchange, response: Gated, model: str) -> None:
    await exchange.start_events()
    gone = asyncio.ensure_future(exchange.client_gone())
    try:
        for event in _pieces(response.pieces, model):
            passed = asyncio.ensure_future(response.passed())
            await asyncio.wait({gone, passed}, return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                passed.cancel()
                response.abandoned.set()
                return
            await exchange.event(event)
            response.sent += 1
            response.started.set()
        await exchange.end_events()
    finally:
        gone.cancel()


def _events(response: Response, model: str) -> Iterator[Json]:
    match response:
        case Text():
            yield from _pieces(response.pieces, model, finish_reason=response.finish_reason)
        case FunctionCalls():
            if response.text:
                yield _event([{"text": response.text}], model)
            calls: list[Json] = [
                {"functionCall": {"name": name, "args": args}} for name, args in response.calls
            ]
            if response.signature:
                calls[0]["thoughtSignature"] = response.signature
            yield _event(calls, model, finish_reason="STOP")
        case Structured():
            value = response.value
            text = value.model_dump_json() if isinstance(value, BaseModel) else json.dumps(value)
            yield from _pieces([text[: len(text) // 2], text[len(text) // 2 :]], model)
        case Malformed():
            yield from _pieces([response.text], model)
        case Blocked(where="prompt"):
            yield {"promptFeedback": {"blockReason": response.reason}, **_about(model, 0)}
        case Blocked():
            yield from _pieces(response.pieces, model, finish_reason=None)
            rating = {"category": "HARM_CATEGORY_HARASSMENT", "probability": "HIGH", "blocked": True}
            candidate = {"finishReason": response.reason, "index": 0, "safetyRatings": [rating]}
            yield {"candidates": [candidate], **_about(model, 0)}
        case Error():
            yield from _pieces(response.pieces, model, finish_reason=None)
            yield _error_body(response)


def _pieces(pieces: Sequence[str], model: str, *, finish_reason: str | None = "STOP") -> Iterator[Json]:
    for number, piece in enumerate(pieces, start=1):
        last = finish_reason if number == len(pieces) else None
        yield _event([{"text": piece}], model, finish_reason=last, tokens=number)


def _event(parts: Sequence[Json], model: str, *, finish_reason: str | None = None, tokens: int = 1) -> Json:
    candidate: Json = {"content": {"parts": list(parts), "role": "model"}, "index": 0}
    if finish_reason is not None:
        candidate["finishReason"] = finish_reason
    return {"candidates": [candidate], **_about(model, tokens)}


def _about(model: str, tokens: int) -> Json:
    # The counts are cumulative: each event repeats what came before it.
    usage = {"promptTokenCount": 10, "candidatesTokenCount": tokens, "totalTokenCount": 10 + tokens}
    return {"usageMetadata": usage, "modelVersion": model, "responseId": "response-1"}


def _merged(events: Sequence[Json]) -> Json:
    """Merge the events of a stream into one body."""
    whole = dict(events[-1])
    parts = [
        part
        for event in events
        for candidate in event.get("candidates", [])
        for part in candidate.get("content", {}).get("parts", [])
    ]
    if parts:
        whole["candidates"] = [{**whole["candidates"][0], "content": {"parts": parts, "role": "model"}}]
    return whole


def _error_body(error: Error) -> Json:
    inner = {"code": error.status, "message": error.message, "status": error.reason}
    if error.details:
        inner["details"] = list(error.details)
    return {"error": inner}


def _text_of(content: Json) -> str:
    return "".join(part.get("text", "") for part in content.get("parts", []))
