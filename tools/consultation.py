"""The tool by which an agent asks another agent."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Final, TypeAlias

from langchain_core.tools import BaseTool, InjectedToolArg, ToolException, tool
from typing_extensions import TypedDict

from tools.execution import CallContext

CONSULT_AGENT: Final = "consult_agent"


class Consultation(TypedDict):
    """What a consulted agent answered.

    Attributes:
        answer: Its answer, for the agent that asked.
        steps: The tools it called, in order, each with its outcome.
        citations: The sources its answer rests on, as the agent that asked cites them.
        unsupported: What its answer states that none of them holds.
    """

    answer: str
    steps: list[str]
    citations: list[dict[str, object]]
    unsupported: list[str]


# Asks an agent of this name; raises ToolException if it could not answer.
Consult: TypeAlias = Callable[[str, str, CallContext], Awaitable[Consultation]]


def consult_agent_tool(agents: Mapping[str, str], consult: Consult) -> BaseTool:
    """Return the tool.

    Args:
        agents: The description of each agent that may be asked, by name.
        consult: Asks one of them.
    """

    @tool(CONSULT_AGENT, parse_docstring=True)
    async def consult_agent(
        agent: str, question: str, context: Annotated[CallContext, InjectedToolArg]
    ) -> Consultation:
        """Ask a specialised colleague about a part of the matter that is theirs and not yours.

        They look things up about the same customer, change nothing and see nothing of this conversation.

        Args:
            agent: Whom to ask.
            question: The question with everything they need to know to answer it.
            context: Given by the run.
        """
        if agent not in agents:
            raise ToolException(f"there is no agent {agent!r}; there are: {', '.join(agents)}")
        return await consult(agent, question, context)

    listed = "\n".join(f"- {name}: {description}" for name, description in agents.items())
    consult_agent.description = f"{consult_agent.description}\n\nThe agents:\n{listed}"
    return consult_agent
