"""The house keeps its rules."""

import subprocess
import sys
import tomllib
from pathlib import Path

from service.cli.docs import PROJECT

WEB_AND_DATABASE = (
    "fastapi",
    "starlette",
    "uvicorn",
    "langserve",
    "sse_starlette",
    "psycopg",
    "psycopg_pool",
)


def test_imports_point_downward() -> None:
    lint = Path(sys.executable).parent / "lint-imports"
    found = subprocess.run([lint, "--no-logo"], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


def test_importing_the_graphs_loads_neither_the_web_stack_nor_the_database_driver() -> None:
    script = f"import sys, graphs.registry; print([m for m in {WEB_AND_DATABASE} if m in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"


def test_only_the_settings_read_the_environment() -> None:
    readers = [
        str(path.relative_to(PROJECT))
        for room in (
            "agents",
            "checkpoints",
            "core",
            "dev_crm",
            "graphs",
            "memory",
            "nodes",
            "service",
            "tools",
            "workflows",
        )
        for path in (PROJECT / room).rglob("*.py")
        if "os.environ" in path.read_text(encoding="utf-8") or "getenv" in path.read_text(encoding="utf-8")
    ]
    assert readers == []


def test_the_images_have_every_room() -> None:
    rooms = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["importlinter"]["root_packages"]
    service, console = [
        {
            line[1:].rstrip("/")
            for line in (PROJECT / ignored).read_text().splitlines()
            if line.startswith("!")
        }
        for ignored in (".dockerignore", "deploy/Dockerfile.console.dockerignore")
    ]
    assert service >= {*rooms, "prompts", "server.py", "requirements.txt"} - {"console"}
    assert console == {"console", "requirements-console.txt"}
    assert not service & console
