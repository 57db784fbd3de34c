"""Run a script of ``tests/javascript`` in Node, with the clients that ``make javascript`` installs."""

import asyncio
import json
import os
import shutil
from asyncio.subprocess import PIPE
from typing import Any, Final

import pytest

from tests.support.process import PROJECT

FOLDER: Final = PROJECT / "tests" / "javascript"
# CI sets it, where a test that is skipped would go unnoticed.
REQUIRED: Final = "REQUIRE_ALL"


def require_node() -> str:
    """Return the path of Node; skip the test where it or the clients are not installed."""
    node = shutil.which("node")
    if node and (FOLDER / "node_modules").is_dir():
        return node
    reason = "needs Node and the clients that `make javascript` installs"
    if os.environ.get(REQUIRED):
        pytest.fail(reason)
    pytest.skip(reason)


async def run_script(name: str, *arguments: Any) -> Any:
    """Run a script and return the JSON that it prints.

    Args:
        name: The script's name in ``tests/javascript``.
        arguments: For it to read; others than texts are passed as JSON.
    """
    texts = [each if isinstance(each, str) else json.dumps(each) for each in arguments]
    process = await asyncio.create_subprocess_exec(
        require_node(), str(FOLDER / name), *texts, cwd=FOLDER, stdout=PIPE, stderr=PIPE
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return json.loads(output)
