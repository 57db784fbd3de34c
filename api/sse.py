"""The one factory of our own event streams."""

import json
from collections.abc import AsyncIterator
from typing import Any

from sse_starlette import EventSourceResponse, ServerSentEvent

# Proxies close connections that say nothing for a minute.
PING_SECONDS = 15


def event(name: str, data: Any) -> ServerSentEvent:
    """A named event with JSON data (WHATWG HTML, server-sent events)."""
    return ServerSentEvent(json.dumps(data, ensure_ascii=False, default=str), event=name)


def stream(events: AsyncIterator[ServerSentEvent]) -> EventSourceResponse:
    """A response that sends the events as they come, past buffering proxies."""
    return EventSourceResponse(
        events, ping=PING_SECONDS, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    )
