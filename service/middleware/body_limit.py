"""Refuse bodies that are too large or arrive too slowly, before anything of them is parsed."""

import asyncio
import contextlib

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.errors import BodyTooLarge, BodyTooSlow, ServiceError
from core.settings import LimitSettings
from service.errors import error_response

# Of a body that is refused, this many times the limit are read and discarded, for at most these seconds.
_DISCARDED = 8
_DISCARD_SECONDS = 1.0


class BodyLimit:
    """ASGI middleware: a body larger than the limit is answered with 413, one that trickles with 408.

    Bodies are read here, up to the limit and the deadline: an error while a route reads would be taken for
    invalid JSON. One that declares its length is refused by that, as the server holds clients to it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        headers = dict(scope.get("headers", ()))
        length = headers.get(b"content-length", b"")
        if scope["type"] != "http" or not (length or b"transfer-encoding" in headers):
            await self._app(scope, receive, send)
            return
        limits: LimitSettings = scope["app"].state.service.settings.limits
        size = int(length) if length.isdigit() else 0
        try:
            messages = await _read(receive, limits, size)
        except ServiceError as error:
            answer = error_response(error)
            answer.headers["Connection"] = "close"
            if isinstance(error, BodyTooLarge):
                # A client that is still sending when its connection closes may never see the answer.
                await _discard(receive, limits.limit_body_bytes * _DISCARDED)
            await answer(scope, receive, send)
        else:
            await self._app(scope, _replay(messages, receive), send)


async def _read(receive: Receive, limits: LimitSettings, size: int) -> list[Message]:
    """Return the messages of a body.

    Args:
        receive: The server's.
        limits: Bytes and seconds.
        size: The declared length in bytes; 0: none is declared.

    Raises:
        BodyTooLarge: It is larger than the limit.
        BodyTooSlow: It did not arrive in time.
    """
    messages: list[Message] = []
    received = 0
    try:
        async with asyncio.timeout(limits.limit_body_seconds):
            while max(size, received) <= limits.limit_body_bytes:
                messages.append(await receive())
                received += len(messages[-1].get("body", b""))
                if not messages[-1].get("more_body") and received <= limits.limit_body_bytes:
                    return messages
    except TimeoutError:
        raise BodyTooSlow(
            f"the body did not arrive within {limits.limit_body_seconds:g} s",
            details={"limit_seconds": limits.limit_body_seconds},
        ) from None
    raise BodyTooLarge(
        f"a body has at most {limits.limit_body_bytes} bytes here",
        details={"limit_bytes": limits.limit_body_bytes},
    )


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
