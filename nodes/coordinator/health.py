"""How the specialised agents have fared lately, in this process."""

from collections import Counter
from collections.abc import Mapping

# Failures in a row from which a person should look at the customer's case, and at the agent.
RECOMMENDS_ESCALATION = 3
DEGRADED = 5


class AgentHealth:
    """Counts each agent's failures in a row. Kept in memory: a restarted service trusts its agents again."""

    def __init__(self) -> None:
        self._failures: Counter[str] = Counter()

    def succeeded(self, agent: str) -> None:
        """The agent answered: what was before is forgotten."""
        del self._failures[agent]

    def failed(self, agent: str) -> None:
        """The agent did not answer."""
        self._failures[agent] += 1

    def failures(self, agent: str) -> int:
        """Its failures in a row."""
        return self._failures[agent]

    def recommends_escalation(self, agent: str) -> bool:
        """Whether it failed so often that a person should take the case."""
        return self._failures[agent] >= RECOMMENDS_ESCALATION

    @property
    def degraded(self) -> Mapping[str, int]:
        """The agents that fail again and again, with their failures in a row."""
        return {agent: count for agent, count in sorted(self._failures.items()) if count >= DEGRADED}
