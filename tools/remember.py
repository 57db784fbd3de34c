"""Note something about the customer."""

from typing import Annotated

from langchain_core.tools import BaseTool, InjectedToolArg, tool
from pydantic import Field

from core.memory import Memory
from tools.execution import CallContext

MAX_CHARACTERS = 1_000


def remember(memory: Memory) -> BaseTool:
    """The tool, over this memory. The same note again is kept once."""

    @tool("remember", parse_docstring=True)
    async def note(
        text: Annotated[str, Field(min_length=1, max_length=MAX_CHARACTERS)],
        context: Annotated[CallContext, InjectedToolArg],
    ) -> dict[str, str]:
        """Note something for whoever talks with this customer in the next days.

        What is said is remembered anyway: note what it does not say, such as what was promised or tried.

        Args:
            text: The note, one or two sentences that are understood without the conversation.
            context: Given by the run.
        """
        kept = await memory.remember(context.scope, text, type="shared", agent=context.agent)
        return {"noted": kept.text}

    return note
