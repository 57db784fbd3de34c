"""What became of a context: what was included, what was dropped, and why. Plain JSON, kept in the state."""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field
from typing_extensions import TypedDict

SectionName: TypeAlias = Literal[
    "system", "given", "customer", "facts", "summary", "conversation", "memories", "message", "attempts"
]


class Dropped(TypedDict):
    """Something that is not in the context."""

    id: str
    why: str


class SectionRecord(TypedDict):
    """One section: the ids of what is in it, in the order they stand, and what is not."""

    section: SectionName
    tokens: int
    included: list[str]
    dropped: list[Dropped]


class ContextRecord(TypedDict):
    """An agent's context."""

    agent: str
    strategy: Annotated[str, Field(description="The retrieval strategy memory was searched with")]
    budget: Annotated[int, Field(description="Most tokens there may be")]
    tokens: Annotated[int, Field(description="Those there are, counted as `counter` counts")]
    counter: str
    sections: Annotated[list[SectionRecord], Field(description="In the order they stand in the prompt")]
