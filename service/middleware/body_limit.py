"""Bodies are bounded before anything of them is parsed."""

import asyncio
import contextlib

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.errors import BodyTooLarge
from service.errors import error_response

# Of a body that is refused, so many times the limit are read and thrown away, for so many seconds.
_DISCARDED = 8
_DISCARD_SECONDS = 1.0


class BodyLimit:
    """ASGI middleware: a body larger than the limit is answered with 413.

    A body that says its length is judged by that, as the server holds clients to it. One that does not
    (chunked) is read here first, up to the limit: an error in the midst of a route's reading would be taken
    for a fault of the JSON.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit: int = scope["app"].state.service.settings.limits.limit_body_bytes
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"")
        if length.isdigit():
            fits = int(length) <= limit
        elif b"transfer-encoding" in headers:
            read = await _read(receive, limit)
            fits, receive = read is not None, _replayed(read or [], receive)
        else:
            fits = True
        if fits:
            await self._app(scope, receive, send)
        else:
            refusal = BodyTooLarge(f"a body has at most {limit} bytes here", details={"limit_bytes": limit})
            answer = error_response(refusal)
            answer.headers["Connection"] = "close"
            # A client that is still sending when its connection closes may never see the answer.
            await _discard(receive, limit * _DISCARDED)
            await answer(scope, receive, send)


async def _read(receive: Receive, limit: int) -> list[Message] | None:
    """The messages of a body; None: it is too large."""
    messages: list[Message] = []
    size = 0
    while not messages or messages[-1].get("more_body"):
        messages.append(await receive())
        size += len(messages[-1].get("body", b""))
        if size > limit:
            return None
    return messages


async def _discard(receive: Receive, most: int) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DISCARD_SECONDS):
            while most > 0 and (message := await receive()).get("more_body"):
                most -= len(message["body"])


def _replayed(messages: list[Message], receive: Receive) -> Receive:
    left = iter(messages)

    async def replay() -> Message:
        return next(left, None) or await receive()

    return replay
