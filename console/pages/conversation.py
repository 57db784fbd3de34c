"""One conversation: what was said, how each answer was made, and a person's reply."""

import time
from typing import Any, Final
from uuid import uuid4

from nicegui import ui

from console.access import require_api
from console.api import Api, ApiError
from console.layout import LiveView, attempt, format_age, frame, show_empty, show_failure, show_json
from console.pages.approvals import draw_approval
from console.pages.inbox import STATES
from console.theme import BADGES, BUBBLES, FAULT

_AUTHORS: Final = {
    "customer": ("Customer", "self-start"),
    "agent": ("Agent", "self-end"),
    "person": ("Person", "self-end"),
}
# How long after a message or the end of a run the messages are read again: a run may take as long.
_SETTLE_SECONDS: Final = 60.0
# What a search shows, besides the newest messages.
_HITS: Final = 10


@ui.page("/conversations/{session_id}")
async def show_conversation(session_id: str) -> None:
    """Draw the page."""
    api = await require_api()
    if api is None:
        return
    with frame("Conversation"):
        ui.link("← Inbox", "/")
        _Conversation(api, session_id).draw()


class _Conversation:
    """The conversation with what a person can do in it."""

    def __init__(self, api: Api, session_id: str) -> None:
        self._api = api
        self._id = session_id
        self._said: list[dict[str, Any]] = []
        self._marks: tuple[str, str | None] | None = None
        self._read_until = 0.0
        # Of the reply that is being written, so that sending it again after a failure sends it once.
        self._key = str(uuid4())

    def draw(self) -> None:
        with ui.element("div").classes("w-full grid grid-cols-1 lg:grid-cols-3 gap-4"):
            with ui.column().classes("lg:col-span-2 w-full"):
                self._messages = LiveView(self._load_messages, _draw_messages)
                with ui.row().classes("w-full items-end gap-2") as self._composer:
                    self._text = (
                        ui.textarea("Reply to the customer").classes("grow").props("autogrow outlined")
                    )
                    ui.button("Send", on_click=self._reply).props("no-caps")
                self._composer.visible = False
            with ui.column().classes("w-full gap-4"):
                self._state = LiveView(self._load_state, self._draw_state)
                LiveView(self._load_approvals, self._draw_approvals)
                LiveView(self._load_facts, _draw_facts, seconds=15)
                with ui.card().classes("w-full gap-1"):
                    search = ui.input("Search what is remembered of the contact").classes("w-full")
                    found = ui.column().classes("w-full gap-1").props('aria-live="polite"')
                    search.on("keydown.enter", lambda: self._search(search.value, found))

    async def _load_messages(self) -> Any:
        session = await self._load_state()
        marks = (session["last_at"], session["changed_at"])
        if marks != self._marks:
            self._marks, self._read_until = marks, time.monotonic() + _SETTLE_SECONDS
        # They are read from many checkpoints, so only for a while after something has happened.
        if time.monotonic() < self._read_until:
            self._said = (await self._api.get(f"/v1/sessions/{self._id}/messages"))["messages"]
        return self._said

    async def _load_state(self) -> Any:
        return await self._api.get(f"/v1/sessions/{self._id}")

    async def _load_approvals(self) -> Any:
        listed = (await self._api.get("/v1/approvals"))["approvals"]
        return [each for each in listed if each["thread_id"] == self._id]

    async def _load_facts(self) -> Any:
        session = await self._load_state()
        return (await self._api.get("/v1/memory/facts", contact_id=session["contact_id"]))["facts"]

    def _draw_state(self, session: dict[str, Any]) -> None:
        self._composer.visible = session["state"] == "person"
        with ui.card().classes("w-full gap-2"):
            ui.badge(STATES[session["state"]], color=BADGES[session["state"]])
            ui.label(f"Contact {session['contact_id']}").classes("break-all")
            ui.label(
                f"Channel {session['channel_id'] or 'unknown'}, last message {format_age(session['last_at'])}"
            )
            if session["held_by"]:
                ui.label(f"{session['held_by']} has it since {format_age(session['held_at'])}")
            if session["latest"]["team"]:
                ui.label(f"For {session['latest']['team']}: {session['latest']['reason']}")
            if session["summary"]:
                ui.label(session["summary"]).classes("whitespace-pre-wrap text-sm")
            if session["state"] == "person":
                ui.button("Hand back to the agents", on_click=lambda: self._act("release")).props("no-caps")
                ui.button("Take it over myself", on_click=lambda: self._act("claim", take_over=True)).props(
                    "no-caps flat"
                )
            else:
                ui.button("Take over", on_click=lambda: self._act("claim")).props("no-caps")
                if session["state"] == "waiting":
                    ui.button("Nobody is needed", on_click=lambda: self._act("release")).props("no-caps flat")

    def _draw_approvals(self, approvals: list[dict[str, Any]]) -> None:
        for approval in approvals:
            draw_approval(self._api, approval)

    async def _search(self, query: str | None, found: ui.column) -> None:
        """Search the contact's memory, over all conversations, and list what was found."""
        found.clear()
        if not (query or "").strip():
            return
        try:
            session = await self._load_state()
            body = {"contact_id": session["contact_id"], "query": query, "limit": _HITS}
            hits = (await self._api.post("/v1/memory/search", body))["hits"]
        except ApiError as error:
            show_failure(error.message)
            return
        with found:
            for hit in hits:
                ui.label(f"{hit['kind']}: {hit['text']}").classes("break-words text-sm")
            if not hits:
                ui.label("Nothing was found").classes("opacity-80")

    async def _act(self, action: str, **params: Any) -> None:
        if await attempt(self._api.post(f"/v1/sessions/{self._id}/{action}", **params)):
            await self._state.refresh()
            await self._messages.refresh()
            if action == "claim":
                # The button that had the focus is gone.
                self._text.run_method("focus")

    async def _reply(self) -> None:
        text = (self._text.value or "").strip()
        if not text:
            return
        reply = self._api.post(f"/v1/sessions/{self._id}/reply", {"text": text}, key=self._key)
        if await attempt(reply):
            self._text.value, self._key = "", str(uuid4())
            await self._messages.refresh()


def _draw_messages(messages: list[dict[str, Any]]) -> None:
    if not messages:
        show_empty("Nothing was said yet")
    for message in messages:
        name, side = _AUTHORS[message["author"]]
        with ui.card().classes(f"max-w-[85%] gap-1 {side} {BUBBLES[message['author']]}"):
            ui.label(" ".join(filter(None, [name, message["name"]]))).classes("text-sm font-bold")
            ui.label(message["text"] or "…").classes("whitespace-pre-wrap break-words")
            if message["details"]:
                _draw_details(message["details"])


def _draw_details(details: dict[str, Any]) -> None:
    agent = details.get("agent_used") or "the coordinator"
    heading = f"{agent}, {details.get('path', '')}, confidence {details.get('confidence', 0):.0%}"
    with ui.expansion(heading).classes("w-full text-sm").props("dense"):
        for attempt_made in details.get("attempts", []):
            actions = ", ".join(attempt_made["actions"]) or "no tool"
            ui.label(
                f"{attempt_made['agent']} {attempt_made['outcome']} with {actions}. {attempt_made['reason']}"
            )
        for citation in details.get("citations", []):
            ui.label(f"Source: {citation['kind']} {citation['id']}, {citation['title']}").classes(
                "break-words"
            )
        if unsupported := details.get("unsupported"):
            ui.label(f"No source has: {', '.join(unsupported)}").classes(FAULT)
        with ui.expansion("Context, routing and memory").classes("w-full").props("dense"):
            rest = {name: details.get(name) for name in ("dispatched", "context", "memory", "handoff")}
            show_json(rest)


def _draw_facts(facts: list[dict[str, Any]]) -> None:
    with ui.card().classes("w-full gap-1"):
        ui.label("Known of the contact").classes("font-bold")
        if not facts:
            ui.label("Nothing yet").classes("opacity-80")
        for fact in facts:
            ui.label(f"{fact['subject']} {fact['predicate']} {fact['object']}").classes("break-words text-sm")
