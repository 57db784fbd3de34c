"""What all pages share: the header, the navigation, empty states and how errors are shown."""

import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from nicegui import ui

from console.access import get_api, sign_out
from console.api import ApiError

PAGES: Final = {
    "/": "Inbox",
    "/approvals": "Approvals",
    "/playground": "Playground",
    "/workflows": "Workflows",
    "/agents": "Agents",
    "/overview": "Overview",
}
REFRESH_SECONDS: Final = 2.0
_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400


@contextmanager
def frame(title: str) -> Iterator[None]:
    """Draw a page with header and navigation; its content is drawn in the context."""
    ui.page_title(f"{title} · Ventros Agents")
    with ui.header().classes("items-center gap-2 px-4 py-2 flex-wrap"):
        ui.label("Ventros Agents").classes("font-bold text-lg mr-4")
        with ui.element("nav").props('aria-label="Pages"').classes("flex flex-wrap gap-1"):
            for path, name in PAGES.items():
                current = ' aria-current="page"' if name == title else ""
                style = "underline font-bold" if current else "no-underline"
                ui.link(name, path).props(current).classes(f"text-white px-2 py-1 {style}")
        ui.space()
        ui.button("Sign out", on_click=_leave).props("flat color=white no-caps")
    with ui.column().classes("w-full max-w-screen-xl mx-auto p-2 md:p-4 gap-4"):
        ui.label(title).classes("text-2xl").props('role="heading" aria-level="1"')
        yield


async def _leave() -> None:
    if get_api():
        await sign_out()
    ui.navigate.to("/sign-in")


def show_empty(text: str, hint: str = "") -> None:
    """Say that there is nothing here, and what to do."""
    with ui.column().classes("w-full items-center p-8 gap-1"):
        ui.label(text).classes("text-lg")
        if hint:
            ui.label(hint).classes("opacity-80 text-center")


def show_error(error: ApiError) -> None:
    """Show what went wrong where the content would be."""
    with ui.card().classes("w-full border-l-4 border-red-700").props('role="alert"'):
        ui.label("This did not work").classes("font-bold")
        ui.label(error.message)
        if error.status in {401, 403}:
            ui.link("Sign in with another key", "/sign-in")


def show_failure(message: str) -> None:
    """Tell the person that something failed, until they close the message."""
    ui.notify(message, type="negative", close_button="Close", timeout=0, multi_line=True)


def show_json(value: Any) -> None:
    """Show a value as JSON, which the keyboard can scroll and copy."""
    code = ui.code(json.dumps(value, indent=2, ensure_ascii=False), language="json").classes("w-full")
    code.markdown.props('tabindex=0 role="group" aria-label="JSON"')
    code.copy_button.props('aria-label="Copy"')


async def attempt(action: Awaitable[Any]) -> bool:
    """Await an action of the person and tell them if it failed; return whether it succeeded."""
    try:
        await action
    except ApiError as error:
        show_failure(error.message)
        return False
    return True


class LiveView:
    """Content that is loaded again every two seconds, and drawn again when it has changed.

    Args:
        load: Loads the data.
        draw: Draws them.
        seconds: How often they are loaded.
    """

    def __init__(
        self,
        load: Callable[[], Awaitable[Any]],
        draw: Callable[[Any], None],
        *,
        seconds: float = REFRESH_SECONDS,
    ) -> None:
        self._load = load
        self._draw = draw
        self._shown: Any = object()
        self._place = ui.column().classes("w-full gap-2")
        ui.timer(seconds, self.refresh, immediate=True)

    async def refresh(self) -> None:
        """Load the data, and draw them if they have changed."""
        try:
            data: Any = await self._load()
        except ApiError as fault:
            data = (fault.status, fault.message)
            if data != self._shown:
                self._redraw(partial(show_error, fault))
        else:
            if data != self._shown:
                self._redraw(partial(self._draw, data))
        self._shown = data

    def _redraw(self, draw: Callable[[], None]) -> None:
        self._place.clear()
        with self._place:
            draw()


def format_age(moment: str | None) -> str:
    """Return how long ago something was, in words."""
    if not moment:
        return ""
    seconds = (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()
    if seconds < _MINUTE:
        return "just now"
    if seconds < _HOUR:
        return f"{seconds // _MINUTE:.0f} min ago"
    return f"{seconds // _HOUR:.0f} h ago" if seconds < _DAY else f"{seconds // _DAY:.0f} d ago"
