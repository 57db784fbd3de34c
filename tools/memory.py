"""Tools over memory: look up what is remembered of the customer, and leave a note."""

import asyncio
from typing import Annotated

from langchain_core.tools import BaseTool, InjectedToolArg, tool
from pydantic import Field
from typing_extensions import TypedDict

from core.customer_text import SendableText
from core.memory import Hit, Memory
from tools.execution import CallContext

# What a model is shown.
MAX_MEMORIES = 8
MAX_NOTES = 4
_MAX_TEXT_CHARACTERS = 1_200

MAX_NOTE_CHARACTERS = 1_000


class MemoryEntry(TypedDict):
    """Something remembered, with its date (ISO 8601) and its source."""

    what: str
    date: str
    source: str


def recall_tool(memory: Memory) -> BaseTool:
    """Return the tool; it searches by the retrieval strategy of the agent that calls it."""

    @tool(parse_docstring=True)
    async def recall(query: str, context: Annotated[CallContext, InjectedToolArg]) -> list[MemoryEntry]:
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
        memories = (_build_entry(hit, _describe_source(hit)) for hit in found.hits[: MAX_MEMORIES + 2])
        return [*(_build_entry(note, "note") for note in notes), *memories]

    return recall


def remember_tool(memory: Memory) -> BaseTool:
    """Return the tool; memory keeps a repeated note once."""

    @tool(parse_docstring=True)
    async def remember(
        text: Annotated[SendableText, Field(min_length=1, max_length=MAX_NOTE_CHARACTERS)],
        context: Annotated[CallContext, InjectedToolArg],
    ) -> dict[str, str]:
        """Note something for whoever talks with this customer in the next days.

        What is said is remembered anyway: note what it does not say, such as what was promised or tried.

        Args:
            text: The note, one or two sentences that are understood without the conversation.
            context: Given by the run.
        """
        note = await memory.remember(context.scope, text, type="shared", agent=context.agent)
        return {"noted": note.text}

    return remember


def _build_entry(hit: Hit, source: str) -> MemoryEntry:
    return MemoryEntry(what=hit.text[:_MAX_TEXT_CHARACTERS], date=hit.at.date().isoformat(), source=source)


def _describe_source(hit: Hit) -> str:
    return f"{hit.kind} of session {hit.session_id}" if hit.session_id else hit.kind
