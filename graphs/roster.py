"""The specialised agents as the service has them: their files, and a router that learns from these."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from langchain_core.tools import BaseTool
from nodes.coordinator.router import AgentRegistry, Router

from agents.loader import load_agents, load_out_of_scope_messages
from agents.spec import AgentSpec
from core.embeddings import VectorCache, build_embedder, build_local_embedder
from core.settings import Settings


def specialised_agents(settings: Settings, tools: Mapping[str, BaseTool]) -> AgentRegistry:
    """The agents of ``agents/``.

    Raises:
        StartupError: A file does not hold; every fault is named with its file and line.
    """
    agents = _shipped(frozenset(tools))
    embedder, local = build_embedder(settings, "similarity"), build_local_embedder("similarity")
    router = Router(
        {name: spec.utterances for name, spec in agents.items()},
        embedder,
        outside=load_out_of_scope_messages(),
        kept=VectorCache(_folder(settings)),
        fallback=None if embedder.model == local.model else local,
    )
    return AgentRegistry(agents=agents, router=router)


@cache
def _shipped(tools: frozenset[str]) -> Mapping[str, AgentSpec]:
    """Read once a process: files do not change under a service."""
    return load_agents(tools=tools)


def _folder(settings: Settings) -> Path | None:
    if not settings.embeddings.cache_dir:
        return None
    try:
        return Path(settings.embeddings.cache_dir).expanduser()
    except RuntimeError:
        # A user without a home, as in some containers.
        return None
