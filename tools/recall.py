"""Look up what is remembered of the customer."""

import asyncio
from typing import Annotated

from langchain_core.tools import BaseTool, InjectedToolArg, tool
from typing_extensions import TypedDict

from core.memory import Hit, Memory
from tools.execution import CallContext

# What a model reads at once.
MAX_MEMORIES = 8
MAX_NOTES = 4
_TEXT_CHARACTERS = 1_200


class Remembered(TypedDict):
    """Something remembered, with its date (ISO 8601) and where it is from."""

    what: str
    date: str
    source: str


def recall(memory: Memory) -> BaseTool:
    """The tool, over this memory. It searches by the retrieval strategy of the agent that calls it."""

    @tool("recall", parse_docstring=True)
    async def look_up(query: str, context: Annotated[CallContext, InjectedToolArg]) -> list[Remembered]:
        """Look up what this customer said or was told in earlier conversations, and notes about them.

        Use it when they refer to something that is not in front of you.

        Args:
            query: What to look for, in words.
            context: Given by the run.
        """
        found, notes = await asyncio.gather(
            memory.search(context.scope, query, strategy=context.strategy, limit=MAX_MEMORIES),
            memory.recall(context.scope, query, agent=context.agent, limit=MAX_NOTES),
        )
        return [*map(_note, notes), *map(_memory, found.hits[: MAX_MEMORIES + 2])]

    return look_up


def _note(hit: Hit) -> Remembered:
    return Remembered(what=hit.text[:_TEXT_CHARACTERS], date=hit.at.date().isoformat(), source="note")


def _memory(hit: Hit) -> Remembered:
    source = f"{hit.kind} of session {hit.session_id}" if hit.session_id else hit.kind
    return Remembered(what=hit.text[:_TEXT_CHARACTERS], date=hit.at.date().isoformat(), source=source)
