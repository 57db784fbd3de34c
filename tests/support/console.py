"""The console in a process of its own, and a browser that looks at it."""

import asyncio
import os
import re
import shutil
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from playwright.async_api import Browser, Page, async_playwright

PROJECT: Final = Path(__file__).parents[2]
PYTHON: Final = PROJECT / os.environ.get("CONSOLE_VENV", ".venv-console") / "bin" / "python"
CHROMIUM: Final = shutil.which("chromium") or shutil.which("chromium-browser")
# Where pictures of pages are left for people to look at.
ARTEFACTS: Final = PROJECT / ".artefacts"
_OPTIONS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def find_missing() -> str:
    """Return what the tests of the console lack; empty: nothing."""
    if CHROMIUM is None:
        return "there is no browser (on Debian: apt-get install chromium)"
    return (
        "" if PYTHON.exists() else "the console is not installed (`make check` and `make serve` install it)"
    )


@asynccontextmanager
async def running_console(service_url: str) -> AsyncIterator[str]:
    """Run the console for a service; yield its address."""
    # NiceGUI serves nothing where it believes to be under test.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    process = await asyncio.create_subprocess_exec(
        str(PYTHON),
        "-u",
        "-m",
        "console",
        cwd=PROJECT,
        env={**environment, "SERVICE_URL": service_url, "CONSOLE_PORT": str(_find_free_port())},
        stdout=asyncio.subprocess.PIPE,
        stderr=sys.stderr,
    )
    try:
        assert process.stdout
        async for line in process.stdout:
            if found := re.search(rb"http://[^\s,]+", line):
                yield found[0].decode()
                break
    finally:
        process.terminate()
        await process.wait()


def _find_free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@asynccontextmanager
async def open_browser() -> AsyncIterator[Browser]:
    """Open Debian's Chromium."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(_OPTIONS))
        try:
            yield browser
        finally:
            await browser.close()


async def take_picture(page: Page, name: str) -> None:
    """Leave a picture of a page."""
    ARTEFACTS.mkdir(exist_ok=True)
    await page.screenshot(path=ARTEFACTS / f"{name}.png")
