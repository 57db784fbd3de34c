"""The one factory of our own event streams."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

from sse_starlette import EventSourceResponse, ServerSentEvent
from sse_starlette.event import ensure_bytes

# Proxies close connections that say nothing for a minute.
PING_SECONDS = 15
# A stream's first pieces are sent at once: the first token is among them. Later ones are so far apart, in
# seconds, that nobody sees it, and what comes meanwhile shares a piece.
FREE_PIECES = 16
PIECE_SECONDS = 0.05
# What is not sent yet of one stream; beyond it the run waits for its client.
MOST_BYTES = 256 * 1024
_SEPARATOR = "\r\n"


def event(name: str, data: Any) -> ServerSentEvent:
    """A named event with JSON data (WHATWG HTML, server-sent events)."""
    return ServerSentEvent(json.dumps(data, ensure_ascii=False, default=str), event=name)


def stream(events: AsyncGenerator[ServerSentEvent, None]) -> EventSourceResponse:
    """A response that sends the events as they come, past buffering proxies."""
    return EventSourceResponse(
        gathered(events), ping=PING_SECONDS, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    )


async def gathered(events: AsyncGenerator[Any, None]) -> AsyncGenerator[bytes, None]:
    """The events' bytes, those that come close together as one piece: to send one is most of its cost.

    Args:
        events: In any form sse-starlette takes; closed with this generator.
    """
    ready = bytearray()
    arrived, taken = asyncio.Event(), asyncio.Event()

    async def read() -> None:
        try:
            async for one in events:
                ready.extend(ensure_bytes(one, _SEPARATOR))
                arrived.set()
                if len(ready) > MOST_BYTES:
                    taken.clear()
                    await taken.wait()
        finally:
            await events.aclose()

    reading = asyncio.create_task(read())
    reading.add_done_callback(lambda _: arrived.set())
    pieces = 0
    try:
        while not reading.done() or ready:
            await arrived.wait()
            if pieces >= FREE_PIECES and not reading.done():
                await asyncio.wait([reading], timeout=PIECE_SECONDS)
            pieces += 1
            arrived.clear()
            piece = bytes(ready)
            ready.clear()
            taken.set()
            if piece:
                yield piece
        await reading
    finally:
        reading.cancel()
        await asyncio.wait([reading])
