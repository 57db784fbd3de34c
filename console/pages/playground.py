"""The playground: run a graph, watch it work, and answer its questions."""

import json
import time
from collections.abc import Mapping
from typing import Any, Final

import httpx
from langgraph_sdk.errors import LangGraphError
from nicegui import ui

from console.access import require_api
from console.api import Api, ApiError
from console.diagrams import draw_graph
from console.forms import SchemaForm
from console.layout import frame, show_empty, show_error, show_failure, show_json
from console.theme import DRAWING

_MODES: Final = ("updates", "messages-tuple", "custom", "tasks")
_EXCERPT: Final = 400


@ui.page("/playground")
async def show_playground(graph: str = "react") -> None:
    """Draw the page.

    Args:
        graph: The graph that is chosen.
    """
    api = await require_api()
    if api is None:
        return
    with frame("Playground"):
        try:
            assistants = await api.post("/assistants/search", {"limit": 100})
            chosen = next((each for each in assistants if each["graph_id"] == graph), None)
            names = sorted(each["graph_id"] for each in assistants)
            ui.select(
                names,
                value=graph if chosen else None,
                label="Graph",
                on_change=lambda event: ui.navigate.to(f"/playground?graph={event.value}"),
            ).classes("w-64")
            if chosen is None:
                show_empty("There is no such graph", "Choose one above.")
                return
            ui.label(chosen["description"])
            identity = chosen["assistant_id"]
            drawing = await api.get(f"/assistants/{identity}/graph", xray=True)
            schemas = await api.get(f"/assistants/{identity}/schemas")
        except ApiError as error:
            show_error(error)
            return
        _Playground(api, identity, drawing, schemas["input_schema"]).draw()


class _Playground:
    """A graph with its form, its picture and what its runs do.

    Args:
        api: The API.
        assistant_id: The graph's system assistant.
        drawing: Its nodes and edges.
        schema: The JSON schema of its input.
    """

    def __init__(
        self, api: Api, assistant_id: str, drawing: Mapping[str, Any], schema: Mapping[str, Any]
    ) -> None:
        self._api = api
        self._assistant = assistant_id
        self._drawing = drawing
        self._schema = schema
        self._thread = ""
        self._active: dict[str, float] = {}
        self._done: list[str] = []
        self._answer = ""
        self._started = 0.0

    def draw(self) -> None:
        """Draw the form, the picture and the timeline."""
        with ui.element("div").classes("w-full grid grid-cols-1 lg:grid-cols-2 gap-4"):
            with ui.column().classes("w-full gap-2"):
                self._form = SchemaForm(self._schema)
                with ui.row().classes("items-center gap-2"):
                    self._run_button = ui.button("Run", on_click=self._start).props("no-caps")
                    ui.button("New thread", on_click=self._forget).props("no-caps flat")
                    self._place = ui.row()
                self._picture = ui.mermaid(draw_graph(self._drawing)).classes(
                    f"w-full overflow-auto {DRAWING}"
                )
            with ui.column().classes("w-full gap-2").props('aria-live="polite"'):
                ui.label("Answer").classes("font-bold")
                self._text = ui.label().classes("whitespace-pre-wrap break-words")
                self._questions = ui.column().classes("w-full")
                ui.label("Timeline").classes("font-bold")
                self._timeline = ui.column().classes("w-full gap-1")

    def _forget(self) -> None:
        self._thread = ""
        self._place.clear()
        self._reset()

    def _reset(self) -> None:
        self._active, self._done, self._answer, self._text.text = {}, [], "", ""
        self._timeline.clear()
        self._questions.clear()
        self._show_picture()

    async def _start(self) -> None:
        try:
            values = self._form.read()
        except ApiError as error:
            show_failure(error.message)
            return
        self._reset()
        await self._run(input=values)

    async def _run(self, **given: Any) -> None:
        """Run the graph on the page's thread and show what it streams."""
        self._run_button.disable()
        self._started = time.monotonic()
        try:
            if not self._thread:
                self._thread = (await self._api.post("/threads", {}))["thread_id"]
                with self._place:
                    ui.link("History of the thread", f"/threads/{self._thread}")
            stream = self._api.agent_server.runs.stream(
                self._thread,
                self._assistant,
                stream_mode=list(_MODES),
                stream_subgraphs=True,
                **given,
            )
            async for part in stream:
                self._take(part.event, part.data)
            await self._show_end()
        except (ApiError, LangGraphError, httpx.HTTPError) as error:
            show_failure(str(error))
        finally:
            self._active.clear()
            self._show_picture()
            self._run_button.enable()

    def _take(self, event: str, data: Any) -> None:
        name = event.partition("|")[0]
        if name == "messages":
            self._take_token(*data)
        elif name == "tasks":
            self._take_task(data)
        elif name == "updates":
            for node, update in data.items():
                self._add_line(node, update)
        elif name == "custom":
            self._add_line("event", data)
        elif name == "error":
            self._add_line("error", data)
            show_failure(str(data.get("message", data)))

    def _take_token(self, message: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
        if message.get("type") == "AIMessageChunk" and "answer" in (metadata.get("tags") or ()):
            content = message.get("content")
            self._answer += content if isinstance(content, str) else ""
            self._text.text = self._answer

    def _take_task(self, task: Mapping[str, Any]) -> None:
        if "triggers" in task:
            self._active[task["name"]] = time.monotonic()
        else:
            begun = self._active.pop(task["name"], self._started)
            self._done.append(task["name"])
            with self._timeline:
                ui.label(f"{task['name']} took {time.monotonic() - begun:.2f} s").classes(
                    "text-sm opacity-80"
                )
        self._show_picture()

    def _add_line(self, node: str, update: Any) -> None:
        with self._timeline, ui.expansion(f"{time.monotonic() - self._started:.2f} s  {node}").props("dense"):
            show_json(update)

    def _show_picture(self) -> None:
        # Of a subgraph's node only the name comes with its tasks; its picture has "parent:node".
        nodes = {node["id"]: str(node["id"]).rpartition(":")[2] for node in self._drawing["nodes"]}
        active = {node for node, name in nodes.items() if name in self._active}
        done = {node for node, name in nodes.items() if name in self._done}
        self._picture.set_content(draw_graph(self._drawing, active, done))

    async def _show_end(self) -> None:
        state = await self._api.get(f"/threads/{self._thread}/state")
        values = state["values"] if isinstance(state["values"], dict) else {}
        answer = values.get("response") or values.get("final_answer") or self._answer
        self._text.text = str(answer)[: _EXCERPT * 50]
        for task in state.get("tasks", []):
            for pending in task.get("interrupts", []):
                self._ask(pending)

    def _ask(self, pending: Mapping[str, Any]) -> None:
        """Show a question of the graph, to be answered in place."""
        with self._questions, ui.card().classes("w-full gap-2"):
            ui.label("The graph asks").classes("font-bold")
            show_json(pending["value"])
            answer = ui.textarea("Answer, as text or JSON", value='{"decision": "approve"}').classes("w-full")

            async def send() -> None:
                try:
                    value = json.loads(answer.value)
                except json.JSONDecodeError:
                    value = answer.value
                self._questions.clear()
                await self._run(command={"resume": {pending["id"]: value}})

            ui.button("Answer", on_click=send).props("no-caps")
