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
# Our pages load their scripts and styles from the service alone; Swagger UI writes styles into the page.
_PAGE_POLICY = (
    b"default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'; "
    b"base-uri 'none'; form-action 'none'; object-src 'none'"
)


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
    is_page = path == "/" or path.endswith(("/docs", "/playground/"))
    return _PAGE_POLICY if is_page else _DATA_POLICY
