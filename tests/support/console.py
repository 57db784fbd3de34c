"""The console in a process of its own, and a browser that looks at it."""

import asyncio
import os
import re
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from playwright.async_api import Browser, Page, async_playwright

from tests.support.servers import CHROMIUM, CONSOLE_PYTHON, PROJECT

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


@asynccontextmanager
async def running_console(service_url: str) -> AsyncIterator[str]:
    """Run the console for a service; yield its address."""
    # NiceGUI serves nothing where it believes to be under test.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    process = await asyncio.create_subprocess_exec(
        str(CONSOLE_PYTHON),
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
