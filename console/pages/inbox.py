"""The inbox: conversations, those that wait for a person first."""

from typing import Any, Final

from nicegui import ui

from console.access import require_api
from console.api import Api
from console.layout import LiveView, format_age, frame, show_empty
from console.theme import BADGES

# The states as people call them.
STATES: Final = {
    "waiting": "Waits for a person",
    "person": "With a person",
    "agent": "With agents",
    "closed": "Closed",
}
_ALL: Final = "All"
_PAGE: Final = 50


@ui.page("/")
async def show_inbox() -> None:
    """Draw the page."""
    api = await require_api()
    if api is None:
        return
    with frame("Inbox"):
        _Inbox(api).draw()


class _Inbox:
    """The list with its filters."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._filters: dict[str, Any] = {}

    def draw(self) -> None:
        with ui.row().classes("w-full items-center gap-2"):
            options = {"": _ALL, **STATES}
            ui.select(
                options, value="", label="State", on_change=lambda event: self._set("state", event.value)
            ).classes("w-48")
            ui.input(
                "Words of the last message, or a contact",
                on_change=lambda event: self._set("query", event.value),
            ).props("clearable debounce=300").classes("grow")
            ui.input("Agent", on_change=lambda event: self._set("agent", event.value)).props(
                "clearable debounce=300"
            ).classes("w-40")
            ui.input("Channel", on_change=lambda event: self._set("channel_id", event.value)).props(
                "clearable debounce=300"
            ).classes("w-40")
        self._view = LiveView(self._load, _draw_list)

    async def _set(self, name: str, value: Any) -> None:
        self._filters[name] = value or None
        await self._view.refresh()

    async def _load(self) -> Any:
        found = (await self._api.get("/v1/sessions", limit=_PAGE, **self._filters))["sessions"]
        order = list(STATES)
        # Those that wait come first, each group as the service lists it: latest first.
        return sorted(found, key=lambda session: order.index(session["state"]))


def _draw_list(sessions: list[dict[str, Any]]) -> None:
    if not sessions:
        show_empty(
            "No conversations here",
            "They appear when the CRM posts a customer's message to POST /v1/messages. Try other filters.",
        )
        return
    with ui.element("ul").classes("w-full list-none p-0 m-0 flex flex-col gap-2"):
        for session in sessions:
            _draw_session(session)


def _draw_session(session: dict[str, Any]) -> None:
    latest = session["latest"]
    with (
        ui.element("li"),
        ui.link(target=f"/conversations/{session['id']}").classes("no-underline text-inherit block"),
        ui.card().classes("w-full p-3 gap-1 hover:shadow-lg"),
    ):
        with ui.row().classes("w-full items-center gap-2"):
            ui.badge(STATES[session["state"]], color=BADGES[session["state"]])
            ui.label(session["contact_id"]).classes("font-bold break-all")
            ui.label(session["channel_id"] or "no channel").classes("opacity-80")
            ui.space()
            ui.label(format_age(session["last_at"])).classes("opacity-80")
        ui.label(f"{latest['author'] or 'nobody'}: {latest['last_message'] or '…'}").classes("break-words")
        parts = [
            f"agent {latest['agent']} ({latest['confidence']:.0%})" if latest["agent"] else "",
            f"held by {session['held_by']}" if session["held_by"] else "",
            f"for {latest['team']}: {latest['reason']}" if latest["team"] else "",
        ]
        if text := " · ".join(filter(None, parts)):
            ui.label(text).classes("text-sm opacity-80")
