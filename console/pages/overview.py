"""Overview: conversations, runs and answer times of a period."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from nicegui import ui

from console.access import require_api
from console.layout import LiveView, frame
from console.theme import DRAWING

# Days of a period, and the seconds of its parts.
_PERIODS: Final = {
    "1 hour": (1 / 24, 60),
    "1 day": (1, 1_800),
    "7 days": (7, 10_800),
    "30 days": (30, 43_200),
}
_CHARTS: Final = {
    "Runs": "runs",
    "Failed runs": "failed",
    "Answer time, median, seconds": "p50",
    "Answer time, 95th percentile, seconds": "p95",
}


@ui.page("/overview")
async def show_overview() -> None:
    """Draw the page."""
    api = await require_api()
    if api is None:
        return
    chosen = {"period": "1 day"}

    async def load() -> Any:
        days, seconds = _PERIODS[chosen["period"]]
        since = datetime.now(UTC) - timedelta(days=days)
        numbers = await api.get("/v1/overview", since=since.isoformat(), seconds=seconds)
        health = await api.get("/health")
        return {
            "health": {name: health.get(name) for name in ("status", "model", "checks")},
            **{name: numbers[name] for name in ("conversations", "runs", "open", "first_token", "models")},
            "period": [since.timestamp() * 1_000, (since + timedelta(days=days)).timestamp() * 1_000],
        }

    async def choose(period: str) -> None:
        chosen["period"] = period
        await view.refresh()

    with frame("Overview"):
        ui.toggle(list(_PERIODS), value=chosen["period"], on_change=lambda event: choose(event.value)).props(
            "no-caps"
        )
        view = LiveView(load, _draw, seconds=10)


def _draw(numbers: dict[str, Any]) -> None:
    talks, now = numbers["conversations"], numbers["open"]
    resolved = f"{talks['by_agents'] / talks['opened']:.0%}" if talks["opened"] else "none"
    with ui.row().classes("w-full gap-4"):
        _draw_number("Health", numbers["health"]["status"])
        _draw_number("Conversations", talks["opened"])
        _draw_number("Without a person", resolved)
        _draw_number("Handed over", talks["handed_over"])
        _draw_number("Taken over", talks["taken_over"])
        _draw_number("First token, median / 95 %", _format_percentiles(numbers["first_token"]))
        _draw_number("Runs now", now["running"])
        _draw_number("Queue", f"{now['pending']} ({now['oldest_pending_seconds']:.0f} s)")
    _draw_models(numbers["models"])
    for title, field in _CHARTS.items():
        _draw_chart(title, numbers["runs"], field, numbers["period"])


def _draw_number(name: str, value: Any) -> None:
    with ui.card().classes("p-3 gap-0 min-w-32"):
        ui.label(str(value)).classes("text-2xl")
        ui.label(name).classes("opacity-80")


def _format_percentiles(seconds: dict[str, float | None]) -> str:
    return " / ".join(
        "none" if each is None else f"{each:.2f} s" for each in (seconds["p50"], seconds["p95"])
    )


def _draw_models(models: list[dict[str, Any]]) -> None:
    for used in models:
        cost = "" if used["cost"] is None else f", {used['cost']:.2f}"
        ui.label(f"{used['model']}: {used['input']:,} tokens in, {used['output']:,} out{cost}")


def _draw_chart(title: str, parts: list[dict[str, Any]], field: str, period: list[float]) -> None:
    graphs = sorted({part["graph"] for part in parts})
    series = [
        {
            "name": graph,
            "type": "bar",
            "stack": "all" if field in {"runs", "failed"} else None,
            "barMaxWidth": 12,
            "data": [[part["at"], part[field]] for part in parts if part["graph"] == graph],
        }
        for graph in graphs
    ]
    with ui.card().classes("w-full"):
        ui.label(title).classes("font-bold")
        if not parts:
            ui.label("No runs in this period").classes("opacity-80")
            return
        ui.echart(
            {
                "xAxis": {"type": "time", "min": period[0], "max": period[1]},
                "yAxis": {"type": "value"},
                "tooltip": {"trigger": "axis"},
                "legend": {},
                "series": series,
            }
        ).classes(f"w-full h-64 {DRAWING}").props(f'role="img" aria-label="{title}"')
