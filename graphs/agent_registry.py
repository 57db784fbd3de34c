"""Build the registry of the specialised agents: their files, and the router that learns from them."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from langchain_core.tools import BaseTool

from agents.loader import load_agents, load_out_of_scope_messages
from agents.spec import AgentSpec
from core.embeddings import VectorCache, build_embedder, build_local_embedder
from core.settings import Settings
from nodes.coordinator.router import AgentRegistry, Router
from tools.consultation import CONSULT_AGENT


def build_agent_registry(
    settings: Settings, tools: Mapping[str, BaseTool], *, vectors: VectorCache | None = None
) -> AgentRegistry:
    """Build the registry of the agents in ``agents/``.

    Args:
        settings: Which embedding model the router uses.
        tools: The tools that agents may name.
        vectors: The process's cache of vectors.

    Raises:
        StartupError: A file is invalid; the message names every error with its file and line.
    """
    specs = _load_specs(frozenset({*tools, CONSULT_AGENT}))
    embedder, local = (
        build_embedder(settings, "similarity", cache=vectors),
        build_local_embedder("similarity"),
    )
    router = Router(
        {name: spec.utterances for name, spec in specs.items()},
        embedder,
        out_of_scope=load_out_of_scope_messages(),
        fallback=None if embedder.model == local.model else local,
        cache_dir=_expand_cache_dir(settings.embeddings.cache_dir),
    )
    return AgentRegistry(specs=specs, router=router)


@cache
def _load_specs(tools: frozenset[str]) -> Mapping[str, AgentSpec]:
    """Load the files once per process."""
    return load_agents(tools=tools)


def _expand_cache_dir(cache_dir: str) -> Path | None:
    if not cache_dir:
        return None
    try:
        return Path(cache_dir).expanduser()
    except RuntimeError:
        # A user without a home directory, as in some containers.
        return None
