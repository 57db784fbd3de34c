"""The live things nodes close over."""

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from langchain_core.tools import BaseTool
from langgraph.runtime import Runtime

from core.concurrency import FairSemaphore
from core.context import Context
from core.memory import Memory, NoMemory
from core.models import ChatModels
from nodes.coordinator.roster import Roster
from nodes.workflow.engine import Engine
from tools.crm.client import CrmClient

StateT_contra = TypeVar("StateT_contra", contravariant=True)
UpdateT_co = TypeVar("UpdateT_co", covariant=True)

# Where the settings say nothing else.
CONTEXT_TOKENS = 6_000


class Node(Protocol[StateT_contra, UpdateT_co]):
    """A step that reads the state and the run's parameters, and gives an update or a ``Command``."""

    def __call__(self, state: StateT_contra, *, runtime: Runtime[Context]) -> Awaitable[UpdateT_co]:
        """Run the step."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Deps:
    """Dependencies of the graphs, given to each ``build_<name>``.

    Attributes:
        models: The chat models, with their retries and fallback.
        tools: What agents may do to the outside, by name.
        crm: The CRM, for what the graphs themselves read of it.
        roster: The specialised agents.
        memory: What is remembered of contacts; where none is given, there is none, and it says so.
        context_tokens: Most tokens of what an agent is told beside its task.
        workflows: What runs the working steps of workflows; where none is given, no step can be run.
    """

    models: ChatModels
    tools: Mapping[str, BaseTool]
    crm: CrmClient
    roster: Roster
    memory: Memory = field(default_factory=NoMemory)
    context_tokens: int = CONTEXT_TOKENS
    workflows: Engine = field(default_factory=lambda: Engine(executors={}, slots=FairSemaphore(1)))


def run_context(runtime: Runtime[Context]) -> Context:
    """The run's parameters; a caller that gives none (Studio) gets the defaults."""
    given: Context | None = runtime.context
    return given if given is not None else Context()
