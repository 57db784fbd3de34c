"""Answer exceptions that no handler of the application knows."""

from collections.abc import MutableMapping
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import error_response, to_service_error


class TypedErrors:
    """ASGI middleware, the innermost one: an exception that no handler knows is answered as a typed error.

    Starlette would answer it outside all middleware: without the request's id and headers, uncounted, and
    raised again for the server to log.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_begun = False

        async def send_and_record(message: MutableMapping[str, Any]) -> None:
            nonlocal has_begun
            has_begun = has_begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, send_and_record)
        except Exception as error:
            if has_begun:
                # The status is sent: only the server can break the response off.
                raise
            await error_response(to_service_error(error))(scope, receive, send)
