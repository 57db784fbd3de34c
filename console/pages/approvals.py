"""What waits for a person's decision."""

import json
from typing import Any

from nicegui import ui

from console.access import require_api
from console.api import Api, ApiError
from console.forms import parse_json
from console.layout import LiveView, attempt, format_age, frame, show_empty, show_failure, show_json


@ui.page("/approvals")
async def show_approvals() -> None:
    """Draw the page."""
    api = await require_api()
    if api is None:
        return

    async def load() -> Any:
        return (await api.get("/v1/approvals"))["approvals"]

    def draw(approvals: list[dict[str, Any]]) -> None:
        if not approvals:
            show_empty(
                "Nothing waits for a decision",
                "Agents ask here before they do what a tool declares as risky.",
            )
        for approval in approvals:
            draw_approval(api, approval)

    with frame("Approvals"):
        LiveView(load, draw)


def draw_approval(api: Api, approval: dict[str, Any]) -> None:
    """Draw a question with the ways to answer it."""
    value = approval["value"] if isinstance(approval["value"], dict) else {"question": approval["value"]}
    decisions = _list_decisions(approval.get("response_schema"))
    with ui.card().classes("w-full gap-2"):
        with ui.row().classes("w-full items-center"):
            ui.label(str(value.get("tool") or approval["graph"])).classes("font-bold")
            ui.space()
            ui.label(format_age(approval["since"])).classes("opacity-80")
        ui.label(str(value.get("question") or value.get("message") or "May this be done?")).classes(
            "whitespace-pre-wrap"
        )
        if text := value.get("answer"):
            ui.label(f"“{text}”").classes("whitespace-pre-wrap text-lg")
        for name, argument in (value.get("arguments") or {}).items():
            ui.label(f"{name}: {argument}").classes("whitespace-pre-wrap break-words")
        if reason := value.get("reason"):
            ui.label(f"Because {reason}").classes("opacity-80")
        with ui.expansion("Everything that is known").classes("w-full").props("dense"):
            show_json(value)
        answer = ui.textarea("Answer as JSON", value=json.dumps(decisions[0] if decisions else {})).classes(
            "w-full"
        )
        answer.visible = not decisions

        async def decide(decision: Any) -> None:
            if await attempt(api.post(f"/v1/approvals/{approval['id']}", decision)):
                ui.notify("Decided", type="positive")

        async def send_written() -> None:
            try:
                decision = parse_json("The answer", answer.value)
            except ApiError as error:
                show_failure(error.message)
                return
            await decide(decision)

        with ui.row().classes("w-full items-center gap-2"):
            if decisions:
                why = ui.input("Reason, where you reject").classes("grow")
                ui.button("Approve", on_click=lambda: decide({"decision": "approve"})).props("no-caps")
                ui.button(
                    "Reject",
                    on_click=lambda: decide({"decision": "reject", "reason": why.value or "rejected"}),
                ).props("no-caps color=negative")
            else:
                ui.button("Send the answer", on_click=send_written).props("no-caps")


def _list_decisions(schema: dict[str, Any] | None) -> list[str]:
    """Return the decisions that a question offers; none: it wants another answer."""
    text = json.dumps(schema or {})
    return [name for name in ("approve", "reject") if f'"{name}"' in text]
