"""Server-sent events: the one factory of streaming responses."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, TypeVar

from sse_starlette import EventSourceResponse, ServerSentEvent
from sse_starlette.event import ensure_bytes

from core.errors import ServiceError, StreamCut
from core.logging import get_logger
from service.encoding import dump_json
from service.errors import to_service_error
from service.runs.request import build_wait_call

log = get_logger(__name__)

EventT = TypeVar("EventT")

# Proxies close connections that are silent for a minute.
PING_SECONDS = 15
# The first chunks of a stream, among which is the first token, are sent at once. Later ones are this many
# seconds apart, which nobody notices, and the events that come meanwhile share a chunk.
IMMEDIATE_CHUNKS = 16
CHUNK_SECONDS = 0.05
# Bytes of one stream that wait to be sent; beyond this the run waits for its client, for so many seconds.
MAX_PENDING_BYTES = 256 * 1024
STALLED_SECONDS = 5.0
_SEPARATOR = "\r\n"


def format_event(name: str, data: Any, *, id: str | None = None) -> bytes:  # noqa: A002 - its name
    """Return a named event with JSON data (WHATWG HTML, server-sent events)."""
    head = f"id: {id}\r\nevent: {name}" if id else f"event: {name}"
    return b"%b\r\ndata: %b\r\n\r\n" % (head.encode(), dump_json(data))


def stream_response(
    events: AsyncGenerator[bytes, None],
    to_error_event: Callable[[ServiceError], bytes] | None = None,
    *,
    thread_id: str = "",
    run_id: str = "",
    ping_seconds: int = PING_SECONDS,
    headers: Mapping[str, str] | None = None,
) -> EventSourceResponse:
    """Return a response that sends the events as they come, past buffering proxies.

    Args:
        events: The events; see :func:`join_chunks` for these and the next ones.
        to_error_event: Returns the last event of a stream that is cut.
        thread_id: The run's thread.
        run_id: The run.
        ping_seconds: How often a comment shows that the connection is alive.
        headers: More of them.
    """
    return EventSourceResponse(
        join_chunks(events, to_error_event, thread_id=thread_id, run_id=run_id),
        ping=ping_seconds,
        ping_message_factory=_Heartbeat,
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no", **(headers or {})},
    )


class _Heartbeat(ServerSentEvent):
    """A comment without a blank line, which several clients take for an event without data."""

    def encode(self) -> bytes:
        """Return the line."""
        return b": heartbeat\r\n"


async def wait_for_first(
    events: AsyncGenerator[EventT, None], to_error_event: Callable[[ServiceError], EventT]
) -> AsyncGenerator[EventT, None]:
    """Wait for the first event of a stream and return the whole stream.

    An error before the first event is raised, so that a run that is not admitted is answered with its own
    status. A later error becomes the last event.

    Args:
        events: Their first one comes when the run is admitted; closed with the returned generator.
        to_error_event: Returns the last event of a stream that failed.

    Raises:
        ServiceError: The stream could not begin.
    """
    first = await anext(events)
    return _continue(first, events, to_error_event)


async def _continue(
    first: EventT, events: AsyncGenerator[EventT, None], to_error_event: Callable[[ServiceError], EventT]
) -> AsyncGenerator[EventT, None]:
    try:
        yield first
        async for event in events:
            yield event
    except Exception as error:  # noqa: BLE001 - the status is sent: the last event is where errors go
        yield to_error_event(to_service_error(error))
    finally:
        await events.aclose()


class _Pending:
    """The bytes of a stream that wait to be sent.

    Attributes:
        arrived: Set when there may be something to send, or nothing more to come.
        is_cut: Whether the client took nothing for too long, so that what follows is dropped.
    """

    def __init__(self) -> None:
        self.arrived = asyncio.Event()
        self.is_cut = False
        self._bytes = bytearray()
        self._taken = asyncio.Event()

    def __len__(self) -> int:
        return len(self._bytes)

    def add(self, event: Any) -> None:
        """Append an event, unless the stream is cut."""
        if not self.is_cut:
            self._bytes.extend(ensure_bytes(event, _SEPARATOR))
            self.arrived.set()

    def cut(self, event: Any) -> None:
        """Append a last event and drop what follows."""
        log.warning("stream_cut", pending_bytes=len(self))
        self.add(event)
        self.is_cut = True

    def take(self) -> bytes:
        """Return all bytes and forget them."""
        self.arrived.clear()
        chunk = bytes(self._bytes)
        self._bytes.clear()
        self._taken.set()
        return chunk

    @property
    def is_full(self) -> bool:
        """Whether the run has to wait for its client."""
        return len(self._bytes) > MAX_PENDING_BYTES and not self.is_cut

    async def wait_for_room(self) -> bool:
        """Return whether there is room for more, at the latest after :data:`STALLED_SECONDS`."""
        self._taken.clear()
        try:
            async with asyncio.timeout(STALLED_SECONDS):
                return await self._taken.wait()
        except TimeoutError:
            return False


# Streams that are read to their end for nobody; the event loop alone would not keep their tasks.
_unheard: set[asyncio.Task[None]] = set()


async def join_chunks(
    events: AsyncGenerator[EventT, None],
    to_error_event: Callable[[ServiceError], EventT] | None = None,
    *,
    thread_id: str = "",
    run_id: str = "",
) -> AsyncGenerator[bytes, None]:
    """Yield the events' bytes; those that come close together share a chunk, as each chunk is costly to send.

    A client that takes nothing of a full buffer for :data:`STALLED_SECONDS` gets what is in it and a last
    event that says so. What follows is dropped, so that the run holds its thread and its slot no longer than
    it needs.

    Args:
        events: In any form that sse-starlette accepts; closed at their end, or with this generator.
        to_error_event: Returns the last event of a stream that is cut. ``None``: no run waits for the client,
            so that the stream does.
        thread_id: The run's thread.
        run_id: The run, whose answer and other events the client may get later.
    """
    pending = _Pending()

    def cut() -> None:
        if to_error_event:
            pending.cut(to_error_event(_build_cut(thread_id, run_id)))

    async def read() -> None:
        try:
            async for event in events:
                pending.add(event)
                while pending.is_full and not await pending.wait_for_room():
                    cut()
        finally:
            await events.aclose()

    reading = asyncio.create_task(read())
    reading.add_done_callback(lambda _: pending.arrived.set())
    chunks = 0
    try:
        while pending or not (reading.done() or pending.is_cut):
            await pending.arrived.wait()
            if chunks >= IMMEDIATE_CHUNKS and not reading.done():
                await asyncio.wait([reading], timeout=CHUNK_SECONDS)
            chunks += 1
            if chunk := pending.take():
                yield chunk
        if not pending.is_cut:
            await reading
    finally:
        await _leave(reading, is_cut=pending.is_cut)


async def _leave(reading: asyncio.Task[None], *, is_cut: bool) -> None:
    """End the task that reads a stream; that of a cut one goes on, so that its run comes to its end."""
    if is_cut:
        _unheard.add(reading)
        reading.add_done_callback(_unheard.discard)
    else:
        reading.cancel()
        await asyncio.wait([reading])


def _build_cut(thread_id: str, run_id: str) -> StreamCut:
    return StreamCut(
        "the stream was read too slowly and is cut here; its run goes on to its end. details.resume gets the "
        "answer, and /v1/runs/{run_id}/stream with Last-Event-ID the rest of the events",
        details={"thread_id": thread_id, "run_id": run_id, "resume": build_wait_call(run_id)},
    )
