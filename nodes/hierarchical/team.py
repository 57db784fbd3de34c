"""The sub-agents of a run."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from core.errors import InvalidRequest
from core.texts import make_storable
from nodes.hierarchical.state import SubAgent

# The sub-agents of a run that names none. Only one of them has external effects, so that no two write to the
# customer.
SUPPORT_TEAM: Sequence[SubAgent] = (
    SubAgent(
        name="researcher",
        description="Reads help articles and past cases: what an error means, what causes a problem and "
        "resolves it, known limits, how something is done.",
        instruction="Quote exact limits, steps and titles. Say so when nothing is found; do not guess.",
        tools=["search_knowledge_base", "search_past_tickets"],
    ),
    SubAgent(
        name="account_specialist",
        description="Looks up the plan, the product version and the usage of limits, and whether the "
        "platform has an incident or outage.",
        instruction="Give exact numbers and versions. Interpret them only as far as you are asked to.",
        tools=["get_product_version", "check_service_status"],
    ),
    SubAgent(
        name="liaison",
        description="Sends the customer a message, opens an engineering ticket. Needs the results of those "
        "who found out what to say.",
        instruction="Do what is asked once, with the facts you are given. Look into an article only where "
        "they leave something open. Customers are written to in their own language.",
        tools=["send_solution_to_customer", "create_engineering_ticket", "search_knowledge_base"],
    ),
)


def complete_team(team: Sequence[SubAgent], tools: Collection[str]) -> list[SubAgent]:
    """Return the sub-agents with every field filled in and checked.

    Args:
        team: The sub-agents as requested.
        tools: Names of the existing tools.

    Raises:
        InvalidRequest: Two have the same name, or one names an unknown tool. The message names all faults.
    """
    counts = Counter(agent["name"].casefold() for agent in team)
    repeated = sorted(name for name, count in counts.items() if count > 1)
    unknown = {agent["name"]: missing for agent in team if (missing := _find_missing(agent, tools))}
    if repeated or unknown:
        raise _invalid_team(repeated, unknown, tools)
    return [
        SubAgent(
            name=agent["name"],
            description=make_storable(agent["description"]),
            instruction=make_storable(agent.get("instruction", "")),
            tools=list(agent.get("tools", [])),
        )
        for agent in team
    ]


def describe_team(team: Sequence[SubAgent]) -> str:
    """Return the sub-agents as the manager sees them, one line each."""
    return "\n".join(f"- {agent['name']}: {' '.join(agent['description'].split())}" for agent in team)


def _find_missing(agent: SubAgent, tools: Collection[str]) -> list[str]:
    return [name for name in dict.fromkeys(agent.get("tools", [])) if name not in tools]


def _invalid_team(
    repeated: Sequence[str], unknown: Mapping[str, Sequence[str]], tools: Collection[str]
) -> InvalidRequest:
    faults = [f"more than one sub-agent is named {name!r}" for name in repeated]
    faults += [
        f"there is no tool {tool!r}, which {agent!r} names"
        for agent, names in unknown.items()
        for tool in names
    ]
    details: dict[str, Any] = {"repeated_names": repeated, "unknown_tools": unknown, "tools": list(tools)}
    return InvalidRequest(
        f"sub_agents: {'; '.join(faults)}; the tools are: {', '.join(tools)}", details=details
    )
