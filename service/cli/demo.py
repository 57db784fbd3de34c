"""``make demo``: watch the ReAct agent solve a support case.

Starts a service of its own (embedded Postgres under ``DATA_DIR/demo``, any free port), or uses the one at
``--url``, and shows each thought, action, observation and reflection as LangServe streams it.
"""

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from langserve import RemoteRunnable
from rich.console import Console

from core.errors import StartupError
from core.logging import configure_logging
from core.settings import LogSettings, Settings
from graphs.registry import REGISTRY
from service.cli.demo import Narration
from service.cli.serve import open_server

CASE = REGISTRY["react"].example


async def run(url: str, console: Console) -> bool:
    """Run the case against a service and narrate it.

    Returns:
        Whether the agent solved it.
    """
    async with httpx.AsyncClient(base_url=url) as http:
        model = (await http.get("/info")).raise_for_status().json()["model"]
    console.print(f"[bold]Service[/]  {url}")
    console.print(f"[bold]Model[/]    {model['model']} ({model['why']})", highlight=False)
    console.print(f"[bold]Task[/]     {CASE['task']}", highlight=False)
    console.print(f"[bold]Contact[/]  {CASE['contact_id']}\n", highlight=False)
    narration = Narration(console)
    async for event in RemoteRunnable(f"{url}/react").astream_events(dict(CASE)):
        narration.tell(event)
    return narration.success


@asynccontextmanager
async def _service(url: str | None) -> AsyncIterator[str]:
    if url:
        yield url.rstrip("/")
        return
    settings = Settings.load()
    server = settings.server.model_copy(
        update={"host": "127.0.0.1", "port": 0, "data_dir": settings.server.data_dir / "demo"}
    )
    own: dict[str, Any] = {"server": server, "log": LogSettings(level="warning")}
    async with open_server(Settings.load(**own)) as up:
        yield up.url


async def _main(url: str | None) -> int:
    console = Console(highlight=False, soft_wrap=True)
    try:
        async with _service(url) as found:
            return 0 if await run(found, console) else 1
    except StartupError as error:
        print(f"error: {error}", file=sys.stderr)
    except httpx.TransportError as error:
        print(f"error: no service answers at {url} ({error}); start one with make serve", file=sys.stderr)
    except httpx.HTTPStatusError as error:
        print(f"error: the service says: {error}", file=sys.stderr)
    return 1


def main() -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description="Watch the ReAct agent solve a support case.")
    parser.add_argument("--url", help="a running service; without it, one is started")
    configure_logging(LogSettings(level="warning"))
    return asyncio.run(_main(parser.parse_args().url))


if __name__ == "__main__":
    sys.exit(main())
