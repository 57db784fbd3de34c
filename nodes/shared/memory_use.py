"""Whether memory could be used for a run. Plain JSON, kept in the state."""

from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict


class MemoryAsked(TypedDict):
    """Whether memory told what it knows."""

    available: Annotated[
        bool, Field(description="Whether memory was asked and answered; if not, the session alone was known")
    ]
    degraded: Annotated[list[str], Field(description="What of it could not be used, with why")]


class MemoryUse(MemoryAsked):
    """Whether memory could be used for a message."""

    recorded: Annotated[
        bool,
        Field(description="Whether memory has message and answer; if not, the next run brings them"),
    ]


NOT_ASKED = MemoryAsked(available=False, degraded=[])
NO_MEMORY_USE = MemoryUse(**NOT_ASKED, recorded=False)
