"""Tell browsers what to refuse, on every response."""

from collections.abc import MutableMapping
from typing import Any, Final

from starlette.types import ASGIApp, Receive, Scope, Send

_Header = tuple[bytes, bytes]

# Answers are data: browsers must not run or frame them, nor guess another type.
_ALWAYS: Final[tuple[_Header, ...]] = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_DATA_POLICY = b"default-src 'none'; frame-ancestors 'none'"
_PAGE = "frame-ancestors 'none'; base-uri 'none'; form-action 'none'; object-src 'none'"
# LangServe's page has its schemas in an inline script and compiles them (Ajv, `new Function`).
_PLAYGROUND_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    f"img-src 'self' data:; {_PAGE}"
).encode()
# FastAPI's pages load Swagger UI and ReDoc from their publishers' hosts.
_DOCUMENT_PAGES = (
    "default-src 'self'; script-src 'unsafe-inline' https://cdn.jsdelivr.net; worker-src blob:; "
    "style-src 'unsafe-inline' https://cdn.jsdelivr.net https://fonts.googleapis.com; "
    "font-src https://fonts.gstatic.com; "
    f"img-src 'self' data: https://fastapi.tiangolo.com https://cdn.redoc.ly; {_PAGE}"
).encode()


class SecurityHeaders:
    """ASGI middleware that adds the security headers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        added = (*_ALWAYS, (b"content-security-policy", _select_policy(scope["path"])))

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *added]
            await send(message)

        await self._app(scope, receive, send_with_headers)


def _select_policy(path: str) -> bytes:
    if "/playground" in path:
        return _PLAYGROUND_POLICY
    if path.endswith(("/docs", "/redoc", "/docs/oauth2-redirect")):
        return _DOCUMENT_PAGES
    return _DATA_POLICY
