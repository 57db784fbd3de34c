"""The agents of a run, and those that answer where a caller names none."""

from collections.abc import Collection, Sequence
from typing import Annotated, NotRequired

from pydantic import Field, StringConstraints
from typing_extensions import TypedDict

from core.errors import InvalidRequest

# What an agent may use where none of its tools is named: these only read.
READING_TOOLS = (
    "search_knowledge_base",
    "search_past_tickets",
    "get_product_version",
    "check_service_status",
)


class AgentSpec(TypedDict):
    """One agent: how it answers, and from what."""

    name: Annotated[
        str,
        StringConstraints(strip_whitespace=True, pattern=r"^[\w -]+$", min_length=1, max_length=80),
        Field(description="Names the branch; no two are the same. Letters, digits, _, - and spaces"),
    ]
    instruction: Annotated[
        str, Field(min_length=1, max_length=2_000, description="How this agent answers, in words to it")
    ]
    tools: NotRequired[
        Annotated[
            list[Annotated[str, Field(min_length=1, max_length=100)]],
            Field(
                max_length=20,
                description="Names of the tools it may use; none: those that only read. Tools with an effect "
                "have it in every branch that uses them, also in one that loses a race",
                json_schema_extra={"default": []},
            ),
        ]
    ]


DEFAULT_AGENTS: list[AgentSpec] = [
    AgentSpec(
        name="knowledge",
        instruction="Say what the help articles know: causes, limits and steps, with their exact numbers.",
        tools=["search_knowledge_base"],
    ),
    AgentSpec(
        name="history",
        instruction="Say what past tickets tell: whether it happened before, and what helped.",
        tools=["search_past_tickets"],
    ),
    AgentSpec(
        name="account",
        instruction="Say what the plan, the product version, the usage of limits and the platform's status "
        "have to do with it.",
        tools=["get_product_version", "check_service_status"],
    ),
]


def checked(agents: Sequence[AgentSpec], there_are: Collection[str]) -> list[AgentSpec]:
    """The agents with their tools filled in.

    Raises:
        InvalidRequest: An agent names a tool that does not exist, or none where there is none to fill in.
    """
    reading = [name for name in READING_TOOLS if name in there_are]
    filled = [
        AgentSpec(
            name=agent["name"],
            instruction=agent["instruction"],
            tools=list(dict.fromkeys(agent.get("tools") or reading)),
        )
        for agent in agents
    ]
    unknown = {agent["name"]: sorted(set(agent["tools"]) - set(there_are)) for agent in filled}
    faults = [
        f"there is no tool {tool!r}, which {name!r} names" for name in unknown for tool in unknown[name]
    ]
    # An agent without a tool would get all of them.
    faults += [f"{agent['name']!r} must name its tools" for agent in filled if not agent["tools"]]
    if faults:
        raise InvalidRequest(
            f"agents: {'; '.join(faults)}; the tools are: {', '.join(there_are)}",
            details={"unknown_tools": {name: tools for name, tools in unknown.items() if tools}},
        )
    return filled
