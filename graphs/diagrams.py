"""Mermaid pictures of the graphs, and keeping those in a document current.

``python -m graphs.diagrams README.md`` rewrites what stands between the document's markers.
"""

import re
import sys
from pathlib import Path
from typing import cast

from core.models import ChatModels
from graphs.registry import REGISTRY, GraphSpec
from nodes.deps import Deps

_MARKED = re.compile(r"(<!-- graph:(\w+) -->\n).*?(<!-- /graph -->)", re.DOTALL)


def mermaid(spec: GraphSpec) -> str:
    """The graph as Mermaid text, drawn from its nodes, edges and ``Command`` annotations."""
    # Nothing is called, so nothing live is needed.
    deps = Deps(models=cast("ChatModels", None), tools={})
    return spec.build(deps).compile().get_graph().draw_mermaid().strip()


def redrawn(document: str) -> str:
    """The document with each ``<!-- graph:NAME -->`` … ``<!-- /graph -->`` drawn anew."""
    return _MARKED.sub(
        lambda found: f"{found[1]}```mermaid\n{mermaid(REGISTRY[found[2]])}\n```\n{found[3]}", document
    )


def main(path: Path) -> None:
    """Rewrite the document in place."""
    path.write_text(redrawn(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
