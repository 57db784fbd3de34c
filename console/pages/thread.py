"""A thread's history: every checkpoint, what changed, and running again from one."""

from collections.abc import Mapping
from typing import Any, Final, cast

import httpx
from langgraph_sdk.errors import LangGraphError
from langgraph_sdk.schema import Checkpoint
from nicegui import ui

from console.access import require_api
from console.api import Api
from console.layout import LiveView, attempt, format_age, frame, show_empty, show_failure, show_json

_PAGE: Final = 100


@ui.page("/threads/{thread_id}")
async def show_thread(thread_id: str) -> None:
    """Draw the page."""
    api = await require_api()
    if api is None:
        return
    with frame("Thread"):
        _Thread(api, thread_id).draw()


class _Thread:
    """The checkpoints of a thread, and the one that is looked at."""

    def __init__(self, api: Api, thread_id: str) -> None:
        self._api = api
        self._id = thread_id
        self._states: list[dict[str, Any]] = []

    def draw(self) -> None:
        """Draw the list and an empty place for the checkpoint."""
        with ui.element("div").classes("w-full grid grid-cols-1 lg:grid-cols-3 gap-4"):
            with ui.column().classes("w-full"):
                self._list = LiveView(self._load, self._draw_list, seconds=5)
            self._detail = ui.column().classes("w-full lg:col-span-2")
        with self._detail:
            ui.label("Choose a checkpoint to see its state.").classes("opacity-80")

    async def _load(self) -> Any:
        return await self._api.post(f"/threads/{self._id}/history", {"limit": _PAGE})

    def _draw_list(self, states: list[dict[str, Any]]) -> None:
        self._states = states
        if not states:
            show_empty("This thread has no checkpoint", "Run a graph on it first.")
        for number, state in enumerate(states):
            metadata = state["metadata"]
            following = ", ".join(state["next"]) or "end"
            with ui.row().classes("w-full items-center gap-2"):
                ui.button(
                    f"step {metadata.get('step', '?')} → {following}",
                    on_click=lambda _, chosen=number: self._show(chosen),
                ).props("flat no-caps align=left").classes("grow")
                ui.label(format_age(state["created_at"])).classes("text-sm opacity-80")

    def _show(self, number: int) -> None:
        state = self._states[number]
        before = self._states[number + 1]["values"] if number + 1 < len(self._states) else {}
        changed = find_changes(before, state["values"])
        self._detail.clear()
        with self._detail:
            with ui.row().classes("items-center gap-2"):
                ui.label(f"Step {state['metadata'].get('step')}").classes("text-lg font-bold")
                ui.button("Run again from here", on_click=lambda: self._run_from(state)).props("no-caps flat")
            ui.label("Changed since the one before").classes("font-bold")
            if not changed:
                ui.label("Nothing").classes("opacity-80")
            for name, (old, new) in changed.items():
                with ui.expansion(name).classes("w-full").props("dense"):
                    ui.label("before")
                    show_json(old)
                    ui.label("now")
                    show_json(new)
            ui.label("The whole state").classes("font-bold")
            show_json(state["values"])

    async def _run_from(self, state: Mapping[str, Any]) -> None:
        await attempt(self._fork(state))
        await self._list.refresh()

    async def _fork(self, state: Mapping[str, Any]) -> None:
        graph = str(state["metadata"].get("graph_id") or state["metadata"].get("graph"))
        checkpoint = cast("Checkpoint", state["checkpoint"])
        try:
            await self._api.agent_server.runs.wait(self._id, graph, input=None, checkpoint=checkpoint)
        except (LangGraphError, httpx.HTTPError) as error:
            show_failure(str(error))
        else:
            ui.notify("It ran again from that checkpoint", type="positive")


def find_changes(before: Any, now: Any) -> dict[str, tuple[Any, Any]]:
    """Return the values that differ between two states, each with the older and the newer value."""
    if not isinstance(before, Mapping) or not isinstance(now, Mapping):
        return {}
    names = sorted({*before, *now})
    return {name: (before.get(name), now.get(name)) for name in names if before.get(name) != now.get(name)}
