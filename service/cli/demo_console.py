"""A ReAct run told on a terminal, from LangServe's ``stream_events``."""

import json
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape

_SHOWN_CHARACTERS = 400


class Narration:
    """Tells events in the order they come; colours on a terminal, plain text in a pipe.

    Args:
        console: Where to.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._thinking = False
        self._step = 0
        self.success = False

    def tell(self, event: Mapping[str, Any]) -> None:
        """Tell one event, if it is worth telling."""
        node = event.get("metadata", {}).get("langgraph_node")
        match event["event"], event["name"]:
            case "on_chat_model_stream", _ if node == "think":
                self._token(event["data"]["chunk"].text)
            case "on_chain_end", "think":
                self._thought_ended(event["data"]["output"]["update"])
            case "on_chain_end", "act":
                for message in event["data"]["output"]["messages"]:
                    self._observation(message)
            case "on_chain_end", "reflect":
                self._reflection(event["data"]["output"]["update"])
            case "on_chain_end", _ if not event.get("parent_ids"):
                self._end(event["data"]["output"])

    def _token(self, text: str) -> None:
        if text and not self._thinking:
            self._thinking = True
            self._step += 1
            self._label("Thought", "cyan")
        self._console.print(escape(text), end="", style="cyan")

    def _thought_ended(self, update: Mapping[str, Any]) -> None:
        self._thinking = False
        self._console.print()
        for message in update.get("messages", []):
            for call in message.tool_calls:
                self._line("Action", "yellow", f"{call['name']} {_json(call['args'])}")

    def _observation(self, message: Any) -> None:
        observed = message.artifact
        text = _json(observed["result"]) if observed["success"] else f"failed: {observed['error']['message']}"
        self._line("Observation", "green" if observed["success"] else "red", f"{message.name}: {_clip(text)}")

    def _reflection(self, update: Mapping[str, Any]) -> None:
        reflection = update["trace"][-1]["reflection"]
        if reflection is None:
            return
        verdict = "complete" if reflection["task_complete"] else "not complete"
        suggested = reflection["suggested_next_action"]
        hint = f"; next: {suggested}" if suggested and not reflection["task_complete"] else ""
        self._line("Reflection", "magenta", f"{reflection['reasoning']} ({verdict}{hint})")
        self._console.print()

    def _end(self, output: Mapping[str, Any]) -> None:
        self.success = output["success"]
        style = "bold green" if self.success else "bold red"
        self._console.print(f"Final answer after {output['iterations']} iterations:", style=style)
        self._console.print(escape(output["final_answer"]))
        if output["reason_incomplete"]:
            self._console.print(f"(incomplete: {output['reason_incomplete']})", style="red")

    def _line(self, label: str, style: str, text: str) -> None:
        self._label(label, style)
        self._console.print(escape(text), style=style)

    def _label(self, label: str, style: str) -> None:
        self._console.print(f"{label + ' ' + str(self._step):<15}", end="", style=f"bold {style}")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _clip(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 1]}…"
