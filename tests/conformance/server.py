"""Serve the graphs of a ``langgraph.json`` on this service, beside its own.

Usage: ``PORT=... DATA_DIR=... python -m tests.conformance.server FOLDER``.
"""

import asyncio
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

from core.logging import configure_logging
from core.settings import Settings
from service.cli.serve import serve_until_signal
from service.runs.graphs import ForeignGraph


def load_graphs(folder: Path) -> list[ForeignGraph]:
    """Return the graphs and graph factories that a folder's ``langgraph.json`` names."""
    named: dict[str, str] = json.loads((folder / "langgraph.json").read_text())["graphs"]
    return [ForeignGraph(name=name, source=_load(folder, place)) for name, place in named.items()]


def _load(folder: Path, place: str) -> Any:
    file, _, attribute = place.rpartition(":")
    path = (folder / file).resolve()
    spec = importlib.util.spec_from_file_location(f"conformance_{path.stem}", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return getattr(module, attribute)


def main() -> None:
    """Serve until a signal."""
    settings, graphs = Settings.load(), load_graphs(Path(sys.argv[1]))
    configure_logging(settings.log)
    asyncio.run(serve_until_signal(settings, foreign=graphs))


if __name__ == "__main__":
    main()
