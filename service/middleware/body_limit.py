"""Refuse bodies that are too large, before anything of them is parsed."""

import asyncio
import contextlib

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.errors import BodyTooLarge
from service.errors import error_response

# Of a body that is refused, this many times the limit are read and discarded, for at most these seconds.
_DISCARDED = 8
_DISCARD_SECONDS = 1.0


class BodyLimit:
    """ASGI middleware: a body larger than the limit is answered with 413.

    A body that declares its length is judged by that, as the server holds clients to it. One that does not
    (chunked) is read here first, up to the limit: an error while a route reads it would be taken for invalid
    JSON.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit: int = scope["app"].state.service.settings.limits.limit_body_bytes
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"")
        if length.isdigit():
            fits = int(length) <= limit
        elif b"transfer-encoding" in headers:
            messages = await _read(receive, limit)
            fits, receive = messages is not None, _replay(messages or [], receive)
        else:
            fits = True
        if fits:
            await self._app(scope, receive, send)
        else:
            error = BodyTooLarge(f"a body has at most {limit} bytes here", details={"limit_bytes": limit})
            answer = error_response(error)
            answer.headers["Connection"] = "close"
            # A client that is still sending when its connection closes may never see the answer.
            await _discard(receive, limit * _DISCARDED)
            await answer(scope, receive, send)


async def _read(receive: Receive, limit: int) -> list[Message] | None:
    """Return the messages of a body; ``None`` if it is too large."""
    messages: list[Message] = []
    size = 0
    while not messages or messages[-1].get("more_body"):
        messages.append(await receive())
        size += len(messages[-1].get("body", b""))
        if size > limit:
            return None
    return messages


async def _discard(receive: Receive, limit: int) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DISCARD_SECONDS):
            while limit > 0 and (message := await receive()).get("more_body"):
                limit -= len(message["body"])


def _replay(messages: list[Message], receive: Receive) -> Receive:
    remaining = iter(messages)

    async def replay() -> Message:
        return next(remaining, None) or await receive()

    return replay
