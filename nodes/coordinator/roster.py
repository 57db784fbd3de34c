"""The specialised agents, who finds the right one, and how they fare."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from agents.spec import AgentSpec
from nodes.coordinator.router import AgentHealth, Router

# Answers what no other agent serves, and what another could not answer.
GENERAL = "general"


@dataclass(frozen=True, slots=True, kw_only=True)
class Roster:
    """The agents of the service.

    Attributes:
        agents: By name; one of them is :data:`GENERAL`.
        router: Finds the agent for a message.
        health: How they have fared lately.
    """

    agents: Mapping[str, AgentSpec]
    router: Router
    health: AgentHealth = field(default_factory=AgentHealth)
