"""Agents and graphs: how they are doing and what they can do."""

from typing import Any

from nicegui import ui

from console.access import require_api
from console.layout import LiveView, frame, show_empty


@ui.page("/agents")
async def show_agents() -> None:
    """Draw the page."""
    api = await require_api()
    if api is None:
        return

    async def load() -> Any:
        return (await api.get("/v1/agents"))["agents"]

    with frame("Agents"):
        LiveView(load, _draw_table, seconds=5)


def _draw_table(agents: list[dict[str, Any]]) -> None:
    if not agents:
        show_empty("There are no agents")
        return
    names = [name for name in agents[0] if not isinstance(agents[0][name], dict | list)]
    columns = [
        {"name": name, "label": name.replace("_", " "), "field": name, "sortable": True, "align": "left"}
        for name in names
    ]
    rows = [{name: agent.get(name) for name in names} for agent in agents]
    ui.table(columns=columns, rows=rows, row_key="id", pagination=25).classes("w-full")
