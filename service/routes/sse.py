"""Server-sent events: the one factory of streaming responses."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from typing import Any, TypeVar

import orjson
from sse_starlette import EventSourceResponse, ServerSentEvent
from sse_starlette.event import ensure_bytes

from core.errors import ServiceError
from service.errors import to_service_error

EventT = TypeVar("EventT")

# Proxies close connections that are silent for a minute.
PING_SECONDS = 15
# The first chunks of a stream, among which is the first token, are sent at once. Later ones are this many
# seconds apart, which nobody notices, and the events that come meanwhile share a chunk.
IMMEDIATE_CHUNKS = 16
CHUNK_SECONDS = 0.05
# Bytes of one stream that wait to be sent; beyond this the run waits for its client.
MAX_PENDING_BYTES = 256 * 1024
_SEPARATOR = "\r\n"
_JSON_OPTIONS = orjson.OPT_NON_STR_KEYS


def format_event(name: str, data: Any, *, id: str | None = None) -> ServerSentEvent:  # noqa: A002 - its name
    """Return a named event with JSON data (WHATWG HTML, server-sent events)."""
    try:
        text = orjson.dumps(data, default=str, option=_JSON_OPTIONS).decode()
    except TypeError:
        # A model may write a number of more than 64 bits into a tool call, which orjson refuses.
        text = json.dumps(data, ensure_ascii=False, default=str)
    return ServerSentEvent(text, event=name, id=id)


def stream_response(events: AsyncGenerator[ServerSentEvent, None]) -> EventSourceResponse:
    """Return a response that sends the events as they come, past buffering proxies."""
    return EventSourceResponse(
        join_chunks(events),
        ping=PING_SECONDS,
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


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


async def join_chunks(events: AsyncGenerator[Any, None]) -> AsyncGenerator[bytes, None]:
    """Yield the events' bytes; those that come close together share a chunk, as each chunk is costly to send.

    Args:
        events: In any form that sse-starlette accepts; closed with this generator.
    """
    ready = bytearray()
    arrived, taken = asyncio.Event(), asyncio.Event()

    async def read() -> None:
        try:
            async for event in events:
                ready.extend(ensure_bytes(event, _SEPARATOR))
                arrived.set()
                if len(ready) > MAX_PENDING_BYTES:
                    taken.clear()
                    await taken.wait()
        finally:
            await events.aclose()

    reading = asyncio.create_task(read())
    reading.add_done_callback(lambda _: arrived.set())
    chunks = 0
    try:
        while not reading.done() or ready:
            await arrived.wait()
            if chunks >= IMMEDIATE_CHUNKS and not reading.done():
                await asyncio.wait([reading], timeout=CHUNK_SECONDS)
            chunks += 1
            arrived.clear()
            chunk = bytes(ready)
            ready.clear()
            taken.set()
            if chunk:
                yield chunk
        await reading
    finally:
        reading.cancel()
        await asyncio.wait([reading])
