"""The graphs for LangGraph Studio: compiled without a checkpointer, as the dev server brings its own.

``langgraph.json`` names attributes of this module; both are made from the registry.
"""

from typing import Any

from langgraph.graph.state import CompiledStateGraph

from core.memory import NoMemory
from core.models import build_chat_models
from core.settings import Settings
from graphs.agent_registry import build_agent_registry
from graphs.registry import REGISTRY
from nodes.deps import Deps
from tools.catalogue import crm_tools, memory_tools
from tools.crm.client import CrmClient, create_http_client


def _deps() -> Deps:
    settings = Settings.load()
    # Without a real CRM, the dev server itself serves the development CRM (see service/cli/studio.py).
    base = settings.crm.api_base or f"http://127.0.0.1:{settings.server.studio_port}/crm"
    crm = CrmClient(create_http_client(settings.crm, base), settings.crm)
    memory = NoMemory("Studio has no memory; the service has")
    tools = {
        **crm_tools(crm, approve_messages_from=settings.approvals.message_risk, memory=memory),
        **memory_tools(memory),
    }
    return Deps(
        models=build_chat_models(settings.models, settings.features),
        tools=tools,
        crm=crm,
        agents=build_agent_registry(settings, tools),
        memory=memory,
        context_tokens=settings.context.tokens,
    )


def _compiled() -> dict[str, CompiledStateGraph[Any, Any, Any, Any]]:
    deps = _deps()
    return {spec.name: spec.build(deps).compile(name=spec.name) for spec in REGISTRY.values()}


# An attribute for each graph, as langgraph.json names them.
globals().update(_compiled())
