"""``python -m console``: serve the console."""

from nicegui import app, ui
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import console.pages.agents
import console.pages.approvals
import console.pages.conversation
import console.pages.inbox
import console.pages.overview
import console.pages.playground
import console.pages.sign_in
import console.pages.thread
import console.pages.workflows  # noqa: F401 - each registers its pages
from console.access import SETTINGS
from console.theme import apply_theme

# NiceGUI compiles its Vue components in the browser, which needs eval; everything else is this origin's own.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; "
    "base-uri 'self'; form-action 'self'"
)
_HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
)


class SecurityHeaders:
    """Adds security headers to every response.

    Args:
        app: The application below.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *_HEADERS]
            await send(message)

        await self._app(scope, receive, send_with_headers)


def main() -> None:
    """Serve until stopped."""
    app.add_middleware(SecurityHeaders)
    apply_theme()
    ui.run(
        host=SETTINGS.host,
        port=SETTINGS.port,
        title="Ventros Agents",
        language="en-US",
        # As the browser asks.
        dark=None,
        storage_secret=SETTINGS.secret,
        session_middleware_kwargs={"same_site": "strict", "max_age": None},
        show=False,
        reload=False,
    )


if __name__ == "__main__":
    main()
