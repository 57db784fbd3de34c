"""The live dependencies of the nodes, and what a node reads from LangGraph's runtime."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from langchain_core.tools import BaseTool
from langgraph.runtime import Runtime

from core.concurrency import FairSemaphore
from core.context import Context
from core.memory import Memory, NoMemory
from core.models import ChatModels
from nodes.coordinator.router import AgentRegistry
from tools.crm.client import CrmClient
from tools.knowledge_base import KnowledgeBase
from workflows.ports import Engine

# The default of Deps.context_tokens; the service takes its own from the settings.
CONTEXT_TOKENS = 6_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Deps:
    """Live dependencies of the graphs, passed to each ``build_<name>``.

    Attributes:
        models: The chat models, with their retries and fallback.
        tools: The tools agents may call, by name.
        crm: The CRM client, for what the nodes themselves read.
        agents: The specialist agents.
        memory: The memory service. The default reports that there is none.
        knowledge: The help articles. ``None``: as the CRM's own search finds them.
        context_tokens: Token budget of the context assembled for an agent.
        review_unsupported: Whether a person decides on answers that state what no source holds.
        workflows: Runs the working steps of workflows. The default can run no step.
    """

    models: ChatModels
    tools: Mapping[str, BaseTool]
    crm: CrmClient
    agents: AgentRegistry
    memory: Memory = field(default_factory=NoMemory)
    knowledge: KnowledgeBase | None = None
    context_tokens: int = CONTEXT_TOKENS
    review_unsupported: bool = False
    workflows: Engine = field(default_factory=lambda: Engine(executors={}, slots=FairSemaphore(1)))


def get_run_context(runtime: Runtime[Context]) -> Context:
    """Return the run's parameters, or the defaults where the caller passed none (Studio)."""
    context: Context | None = runtime.context
    return context if context is not None else Context()


def get_thread_id(runtime: Runtime[Context]) -> str:
    """Return the thread's id; a graph compiled without a checkpointer has none."""
    info = runtime.execution_info
    return (info.thread_id if info else None) or "no-thread"
