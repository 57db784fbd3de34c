"""Mermaid diagrams of the graphs."""

from typing import cast

from core.models import ChatModels
from graphs.spec import GraphSpec
from nodes.coordinator.router import AgentRegistry, Router
from nodes.deps import Deps
from tools.crm.client import CrmClient


def draw_mermaid(spec: GraphSpec) -> str:
    """Return the graph's Mermaid diagram, drawn from its nodes, edges and ``Command`` annotations."""
    # Drawing calls no node, so no live dependency is needed.
    deps = Deps(
        models=cast("ChatModels", None),
        tools={},
        crm=cast("CrmClient", None),
        agents=AgentRegistry(specs={}, router=cast("Router", None)),
    )
    return spec.build(deps).compile().get_graph().draw_mermaid().strip()
