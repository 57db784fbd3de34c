"""A pytest plugin for LangGraph's own client tests: they reach our server, and none is skipped."""

import os
from collections.abc import Generator
from types import ModuleType
from typing import Any

import pytest

URL = os.environ.get("LANGGRAPH_INTEGRATION_URL", "")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Replace the address that one module has written in it."""
    for item in items:
        module: ModuleType | None = getattr(item, "module", None)
        if module and hasattr(module, "URL"):
            module.URL = URL  # type: ignore[attr-defined]  # the module has it


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """Count a skipped test as failed."""
    outcome = yield
    report = outcome.get_result()
    if report.outcome == "skipped":
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped: {report.longrepr}"
