"""Workflows: their runs, each with its diagram, and what a person can do about one."""

from typing import Any

from nicegui import ui

from console.access import require_api
from console.api import Api, ApiError
from console.forms import parse_json
from console.layout import LiveView, attempt, format_age, frame, show_empty, show_failure, show_json
from console.theme import DRAWING


@ui.page("/workflows")
async def show_workflows() -> None:
    """Draw the list of runs."""
    api = await require_api()
    if api is None:
        return

    async def load() -> Any:
        return (await api.get("/v1/workflows", limit=50))["workflows"]

    with frame("Workflows"):
        LiveView(load, _draw_runs)


def _draw_runs(runs: list[dict[str, Any]]) -> None:
    if not runs:
        show_empty("No workflow has run", 'Start one: POST /v1/workflows {"name": …, "input": …}.')
        return
    for run in runs:
        with (
            ui.link(target=f"/workflows/{run['id']}").classes("no-underline text-inherit w-full"),
            ui.card().classes("w-full p-3"),
            ui.row().classes("w-full items-center gap-2"),
        ):
            ui.badge(run["status"])
            ui.label(run["name"]).classes("font-bold")
            ui.space()
            ui.label(format_age(run.get("created_at"))).classes("opacity-80")


@ui.page("/workflows/{run_id}")
async def show_workflow(run_id: str) -> None:
    """Draw one run."""
    api = await require_api()
    if api is None:
        return

    async def load() -> Any:
        report = await api.get(f"/v1/workflows/{run_id}")
        return {"report": report, "diagram": await api.get(f"/v1/workflows/{run_id}/diagram")}

    with frame("Workflow"):
        ui.link("← Workflows", "/workflows")
        LiveView(load, lambda data: _draw_run(api, data["report"], data["diagram"]))


def _draw_run(api: Api, report: dict[str, Any], diagram: str) -> None:
    path = f"/v1/workflows/{report['id']}"
    with ui.row().classes("w-full items-center gap-2"):
        ui.badge(report["status"])
        ui.label(report["name"]).classes("text-lg font-bold")
        ui.space()
        ui.button("Recover", on_click=lambda: attempt(api.post(f"{path}/recover", {}))).props("no-caps flat")
        ui.button("Cancel", on_click=lambda: attempt(api.post(f"{path}/cancel"))).props(
            "no-caps flat color=negative"
        )
    ui.mermaid(diagram).classes(f"w-full overflow-auto {DRAWING}")
    signal = ui.input("Signal").props("outlined dense")
    payload = ui.input("Payload as JSON", value="{}").props("outlined dense")

    async def send() -> None:
        try:
            body = {"payload": parse_json("The payload", payload.value or "{}")}
        except ApiError as error:
            show_failure(error.message)
            return
        await attempt(api.post(f"{path}/signals/{signal.value}", body))

    ui.button("Send the signal", on_click=send).props("no-caps flat")
    show_json(report)
