"""How a specialised agent's work is called, whatever pattern carries it out."""

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from typing_extensions import TypedDict

from agents.spec import AgentSpec
from core.context import Context
from nodes.coordinator.state import SpecialistInput, TeamCall


class Answer(TypedDict):
    """What came of an agent's work.

    ``response`` is what to tell the customer, or the best there is without success; ``reason`` says why it
    is none; ``actions`` are the tools that did what they do; ``called`` says whom it called, if anybody.
    """

    success: bool
    response: str
    reason: str
    actions: list[str]
    called: TeamCall | None


# A subgraph of the run that calls it, or a step of it: failures are raised, typed.
Specialist: TypeAlias = Callable[[AgentSpec, SpecialistInput, Context], Awaitable[Answer]]
