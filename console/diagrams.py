"""Pictures of graphs, with the nodes that work at the moment."""

from collections.abc import Collection, Mapping
from typing import Any


def draw_graph(graph: Mapping[str, Any], active: Collection[str] = (), done: Collection[str] = ()) -> str:
    """Return a Mermaid flowchart of a graph as ``GET /assistants/{id}/graph`` describes it.

    Args:
        graph: Its ``nodes`` and ``edges``.
        active: Ids of the nodes that work now.
        done: Ids of the nodes that have worked.
    """
    names = {node["id"]: f"n{number}" for number, node in enumerate(graph["nodes"])}
    lines = ["flowchart TD"]
    for node, name in names.items():
        text = str(node).replace('"', "'")
        lines.append(f'  {name}(["{text}"])' if node in {"__start__", "__end__"} else f'  {name}["{text}"]')
    for edge in graph["edges"]:
        if edge["source"] in names and edge["target"] in names:
            arrow = "-.->" if edge.get("conditional") else "-->"
            lines.append(f"  {names[edge['source']]} {arrow} {names[edge['target']]}")
    lines.append("  classDef active fill:#1d4ed8,color:#ffffff,stroke:#1e3a8a")
    lines.append("  classDef done fill:#bbf7d0,color:#000000,stroke:#15803d")
    lines += [f"  class {names[node]} done" for node in done if node in names and node not in active]
    lines += [f"  class {names[node]} active" for node in active if node in names]
    return "\n".join(lines)
