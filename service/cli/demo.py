"""``make demo``: watch the ReAct agent solve a support case.

Starts a service of its own (embedded Postgres under ``DATA_DIR/demo``, any free port), or uses the one at
``--url``, and shows each thought, action, observation and reflection as LangServe streams it.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
from langserve import RemoteRunnable
from rich.console import Console
from rich.markup import escape

from core.errors import StartupError
from core.logging import configure_logging
from core.models.reasoning import get_reasoning
from core.settings import LogSettings, Settings
from graphs.registry import REGISTRY
from service.cli.serve import open_server

CASE = REGISTRY["react"].example
_MAX_OBSERVATION_CHARACTERS = 400


class RunPrinter:
    """Prints a ReAct run from LangServe's ``astream_events``; with colours on a terminal only.

    Args:
        console: Where to print.

    Attributes:
        success: Whether the run has succeeded.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._is_thinking = False
        self._step = 0
        self.success = False

    def print_event(self, event: Mapping[str, Any]) -> None:
        """Print one event, if it concerns a step of the run."""
        node = event.get("metadata", {}).get("langgraph_node")
        match event["event"], event["name"]:
            case "on_chat_model_stream", "thought" if node == "think":
                self._print_thought(get_reasoning(event["data"]["chunk"]))
            case "on_chain_end", "think":
                self._print_actions(event["data"]["output"]["update"])
            case "on_chain_end", "act":
                for message in event["data"]["output"]["messages"]:
                    self._print_observation(message)
            case "on_chain_end", "reflect":
                self._print_reflection(event["data"]["output"]["update"])
            case "on_chain_end", _ if not event.get("parent_ids"):
                self._print_answer(event["data"]["output"])

    def _print_thought(self, text: str) -> None:
        if text and not self._is_thinking:
            self._is_thinking = True
            self._step += 1
            self._print_label("Thought", "cyan")
        self._console.print(escape(text), end="", style="cyan")

    def _print_actions(self, update: Mapping[str, Any]) -> None:
        if self._is_thinking:
            self._console.print()
        # A model may call a tool without a word.
        elif any(message.tool_calls for message in update.get("messages", [])):
            self._step += 1
        self._is_thinking = False
        for message in update.get("messages", []):
            for call in message.tool_calls:
                self._print_line("Action", "yellow", f"{call['name']} {_to_json(call['args'])}")

    def _print_observation(self, message: Any) -> None:
        observation = message.artifact
        if observation["success"]:
            text, style = _to_json(observation["result"]), "green"
        else:
            text, style = f"failed: {observation['error']['message']}", "red"
        if len(text) > _MAX_OBSERVATION_CHARACTERS:
            text = f"{text[: _MAX_OBSERVATION_CHARACTERS - 1]}…"
        self._print_line("Observation", style, f"{message.name}: {text}")

    def _print_reflection(self, update: Mapping[str, Any]) -> None:
        reflection = update["trace"][-1]["reflection"]
        if reflection is None:
            return
        verdict = "complete" if reflection["task_complete"] else "not complete"
        suggestion = reflection["suggested_next_action"]
        hint = f"; next: {suggestion}" if suggestion and not reflection["task_complete"] else ""
        self._print_line("Reflection", "magenta", f"{reflection['reasoning']} ({verdict}{hint})")
        self._console.print()

    def _print_answer(self, output: Mapping[str, Any]) -> None:
        self.success = output["success"]
        style = "bold green" if self.success else "bold red"
        self._console.print(f"Final answer after {output['iterations']} iterations:", style=style)
        self._console.print(escape(output["final_answer"]))
        if output["reason_incomplete"]:
            self._console.print(f"(incomplete: {output['reason_incomplete']})", style="red")

    def _print_line(self, label: str, style: str, text: str) -> None:
        self._print_label(label, style)
        self._console.print(escape(text), style=style)

    def _print_label(self, label: str, style: str) -> None:
        self._console.print(f"{label + ' ' + str(self._step):<15}", end="", style=f"bold {style}")


def _to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


async def run_case(url: str, console: Console) -> bool:
    """Run the case against a service, print it, and return whether the agent solved it."""
    async with httpx.AsyncClient(base_url=url) as http:
        model = (await http.get("/info")).raise_for_status().json()["model"]
    console.print(f"[bold]Service[/]  {url}")
    console.print(f"[bold]Model[/]    {model['model']} ({model['why']})", highlight=False)
    console.print(f"[bold]Task[/]     {CASE['task']}", highlight=False)
    console.print(f"[bold]Contact[/]  {CASE['contact_id']}\n", highlight=False)
    printer = RunPrinter(console)
    async for event in RemoteRunnable(f"{url}/react").astream_events(dict(CASE)):
        printer.print_event(event)
    return printer.success


@asynccontextmanager
async def _open_service(url: str | None) -> AsyncIterator[str]:
    if url:
        yield url.rstrip("/")
        return
    settings = Settings.load()
    server = settings.server.model_copy(
        update={"host": "127.0.0.1", "port": 0, "data_dir": settings.server.data_dir / "demo"}
    )
    overrides: dict[str, Any] = {"server": server, "log": LogSettings(level="warning")}
    async with open_server(Settings.load(**overrides)) as running:
        yield running.url


async def _run(url: str | None) -> int:
    console = Console(highlight=False, soft_wrap=True)
    try:
        async with _open_service(url) as service_url:
            return 0 if await run_case(service_url, console) else 1
    except StartupError as error:
        print(f"error: {error}", file=sys.stderr)
    except httpx.TransportError as error:
        print(f"error: no service answers at {url} ({error}); start one with make serve", file=sys.stderr)
    except httpx.HTTPStatusError as error:
        print(f"error: the service answered: {error}", file=sys.stderr)
    return 1


def main() -> int:
    """Parse the arguments and run the demo."""
    parser = argparse.ArgumentParser(description="Watch the ReAct agent solve a support case.")
    parser.add_argument("--url", help="a running service; without it, one is started")
    configure_logging(LogSettings(level="warning"))
    return asyncio.run(_run(parser.parse_args().url))


if __name__ == "__main__":
    sys.exit(main())
