"""What graphs have in their state and in their answer that tell their agents what is known of a contact."""

from typing import Annotated, Any

from pydantic import Field
from typing_extensions import TypedDict

from core.packing import ContextRecord
from nodes.shared.channels import StoredText
from nodes.shared.memory import NO_MEMORY_STATUS, MemoryStatus


class Briefed(TypedDict):
    """Of the latest run: what is known, and what of it was left out."""

    # As given by the caller, and then with what was assembled.
    known: StoredText
    context: list[ContextRecord]
    memory: MemoryStatus


class BriefedOutput(TypedDict):
    """What is said of it in the answer."""

    context: Annotated[
        list[ContextRecord],
        Field(description="What the agent was told beside its task, what was left out, and why"),
    ]
    memory: Annotated[MemoryStatus, Field(description="Whether memory could be used")]


def unbriefed(given: str = "") -> dict[str, Any]:
    """What a run begins with.

    Args:
        given: Background from the caller.
    """
    return {"known": given, "context": [], "memory": NO_MEMORY_STATUS}
