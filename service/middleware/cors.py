"""Allow the pages that the operator names to call the service from a browser."""

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_REQUEST_HEADERS = (
    "Authorization",
    "Content-Type",
    "Accept",
    "X-Request-Id",
    "Idempotency-Key",
    "Last-Event-ID",
    "Prefer",
    # What LangGraph's clients and Studio send.
    "X-Api-Key",
    "X-Auth-Scheme",
)
_RESPONSE_HEADERS = (
    "X-Request-Id",
    "X-Thread-Id",
    "X-Run-Id",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "WWW-Authenticate",
    "Content-Location",
    "Location",
    "X-Pagination-Total",
    "X-Pagination-Next",
)


class Cors:
    """ASGI middleware: CORS (Fetch standard) for ``CORS_ORIGINS``; without them it does nothing.

    The inner middleware is built at the first request, because the settings are read when the application
    opens. Credentials that a browser stores are never allowed: a page sends its token in a header.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._inner: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._inner is None:
            origins = scope["app"].state.service.settings.server.cors_origins
            self._inner = self._build_inner(origins) if origins else self._app
        await self._inner(scope, receive, send)

    def _build_inner(self, origins: tuple[str, ...]) -> ASGIApp:
        return CORSMiddleware(
            self._app,
            allow_origins=origins,
            allow_methods=_METHODS,
            allow_headers=_REQUEST_HEADERS,
            expose_headers=_RESPONSE_HEADERS,
        )
