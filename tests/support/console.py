"""The console in a process of its own, and a browser that looks at it."""

import asyncio
import os
import re
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Literal

from playwright.async_api import Browser, Locator, Page, async_playwright, expect

from tests.support.servers import AXE, CHROMIUM, CONSOLE_PYTHON, PROJECT

# Where pictures of pages are left for people to look at.
ARTEFACTS: Final = PROJECT / ".artefacts"
# The ends of the names of their pictures.
_SCHEMES: Final[dict[Literal["light", "dark"], str]] = {"light": "", "dark": "-dark"}
# WCAG 2.0, 2.1 and 2.2, levels A and AA.
_RULES: Final = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
# More than a page has places that the keyboard reaches.
_STOPS: Final = 50
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


async def inspect_page(page: Page, name: str) -> None:
    """Leave pictures of a page in light and dark, and require that axe finds no barrier in either."""
    ARTEFACTS.mkdir(exist_ok=True)
    # A colour on its way to another has a contrast of its own.
    await page.add_style_tag(
        content="*, ::before, ::after { transition: none !important; animation: none !important }"
    )
    await page.evaluate(AXE.read_text("utf-8"))
    barriers: list[str] = []
    for scheme, suffix in _SCHEMES.items():
        await page.emulate_media(color_scheme=scheme)
        await expect(page.locator("body")).to_contain_class(f"body--{scheme}")
        await page.screenshot(path=ARTEFACTS / f"{name}{suffix}.png")
        found = await page.evaluate("tags => axe.run({runOnly: tags, resultTypes: ['violations']})", _RULES)
        barriers += [
            f"{name} in {scheme}, {rule['id']}: {node['html'][:200]}\n  {node['failureSummary']}"
            for rule in found["violations"]
            for node in rule["nodes"]
        ]
    await page.emulate_media(color_scheme="light")
    assert not barriers, "\n".join([f"axe finds {len(barriers)} barriers:", *barriers])


async def tab_to(target: Locator) -> None:
    """Press Tab until an element has the focus, and require that one sees that it has."""
    for _ in range(_STOPS):
        if await target.evaluate("element => element === document.activeElement"):
            break
        await target.page.keyboard.press("Tab")
    await expect(target).to_be_focused()
    assert await target.evaluate(
        "each => getComputedStyle(each).outlineStyle !== 'none' || !!each.closest('.q-field--focused')"
    ), f"nothing shows that {target} has the focus"
