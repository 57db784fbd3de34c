"""Agents and graphs: how they are doing and what they can do."""

from typing import Any, Final

from nicegui import ui
from nicegui.events import GenericEventArguments

from console.access import require_api
from console.api import Api, ApiError
from console.layout import LiveView, frame, show_empty, show_failure, show_json

_COLUMNS: Final = {
    "name": "Name",
    "kind": "Kind",
    "state": "State",
    "health": "Health",
    "requests": "Requests",
    "success": "Success",
    "median": "Median",
    "p95": "95 %",
    "description": "For",
}
_NAME_CELL: Final = """
    <q-td :props="props"><button class="nicegui-link text-left">{{ props.value }}</button></q-td>
"""


@ui.page("/agents")
async def show_agents() -> None:
    """Draw the page."""
    api = await require_api()
    if api is None:
        return

    async def load() -> Any:
        return [_build_row(agent) for agent in (await api.get("/v1/agents"))["agents"]]

    with frame("Agents"):
        ui.label(
            "Numbers are those of the process that answered, since it started. Choose an agent for details."
        )
        LiveView(load, lambda rows: _draw_table(api, rows), seconds=5)


def _build_row(agent: dict[str, Any]) -> dict[str, Any]:
    rate, latency = agent["success_rate"], agent["latency_seconds"]
    return {
        "id": agent["id"],
        **{name: agent[name] for name in ("name", "kind", "state", "health", "requests", "description")},
        "success": "" if rate is None else f"{rate:.0%}",
        "median": _format_seconds(latency["p50"]),
        "p95": _format_seconds(latency["p95"]),
    }


def _format_seconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.2f} s"


def _draw_table(api: Api, rows: list[dict[str, Any]]) -> None:
    if not rows:
        show_empty("There are no agents", "Each Markdown file in agents/ is one.")
        return
    columns = [
        {"name": name, "label": label, "field": name, "sortable": True, "align": "left"}
        for name, label in _COLUMNS.items()
    ]
    table = ui.table(columns=columns, rows=rows, row_key="id", pagination=50)
    table.classes("w-full").props("wrap-cells dense")
    # A row cannot be reached with the keyboard; a press of this button is a click on its row, too.
    table.add_slot("body-cell-name", _NAME_CELL)

    async def open_row(event: GenericEventArguments) -> None:
        await _show_agent(api, event.args[1]["id"])

    table.on("rowClick", open_row)


async def _show_agent(api: Api, agent_id: str) -> None:
    try:
        agent = await api.get(f"/v1/agents/{agent_id}")
    except ApiError as error:
        show_failure(error.message)
        return
    dialog = ui.dialog(value=True)
    dialog.props["aria-label"] = agent["name"]
    with dialog, ui.card().classes("w-full"):
        ui.label(agent["name"]).classes("text-lg font-bold")
        ui.label(agent["description"])
        show_json(agent["capabilities"])
