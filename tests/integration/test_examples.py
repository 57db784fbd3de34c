"""The examples of the documents run as they stand, against a service of their own."""

import asyncio
import re
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator

import pytest

from tests.support.javascript import require_node
from tests.support.process import PROJECT
from tests.support.service import RunningService, running_service

DOCUMENT = (PROJECT / "docs/http-api.md").read_text(encoding="utf-8")
BLOCKS: list[tuple[str, str]] = re.findall(r"^```(python|js)\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
ADDRESS = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
async def running(shared_database_url: str) -> AsyncIterator[RunningService]:
    async with running_service(shared_database_url) as opened:
        yield opened


def test_there_are_examples_for_each_kind_of_client() -> None:
    for client in ("langserve", "mcp", "openai", "fetch("):
        assert any(client in code for _, code in BLOCKS), client


@pytest.mark.parametrize("number", range(len(BLOCKS)))
async def test_an_example_of_the_http_api_prints_an_answer(running: RunningService, number: int) -> None:
    language, code = BLOCKS[number]
    assert ADDRESS in code
    command = (
        (sys.executable, "-W", "ignore", "-c")
        if language == "python"
        else (require_node(), "--input-type=module", "-e")
    )
    process = await asyncio.create_subprocess_exec(
        *command, code.replace(ADDRESS, running.url), stdout=PIPE, stderr=PIPE
    )
    printed, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    # The articles and invoices of the development CRM.
    assert re.search(r"export|invoice|INV-|article", printed.decode(), re.IGNORECASE), printed.decode()
