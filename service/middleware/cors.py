"""Which pages may call the service from a browser: none, but for those the operator names."""

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

_METHODS = ("GET", "POST", "DELETE")
_ASKED = ("Authorization", "Content-Type", "Accept", "X-Request-Id", "Idempotency-Key", "Last-Event-ID")
_TOLD = ("X-Request-Id", "X-Thread-Id", "RateLimit", "RateLimit-Policy", "Retry-After", "WWW-Authenticate")


class Cors:
    """ASGI middleware: CORS (Fetch standard) for ``CORS_ORIGINS``, and nothing where there are none.

    Made at the first request, as the settings are read when the application opens. Credentials that a browser
    keeps are never allowed: a page sends its token in a header of its own.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._made: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._made is None:
            origins = scope["app"].state.service.settings.server.cors_origins
            self._made = self._with_cors(origins) if origins else self._app
        await self._made(scope, receive, send)

    def _with_cors(self, origins: tuple[str, ...]) -> ASGIApp:
        return CORSMiddleware(
            self._app,
            allow_origins=origins,
            allow_methods=_METHODS,
            allow_headers=_ASKED,
            expose_headers=_TOLD,
        )
