"""What a run is given, keeps and answers."""

from typing import Annotated, Literal, TypeAlias

from langchain_core.messages import AnyMessage
from langgraph.channels import EphemeralValue
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from nodes.shared.channels import Messages, StoredText
from nodes.shared.contact import ContactProfile
from nodes.shared.context import ContextOutput, ContextState

# Those of the model are the codes of its errors.
Reason: TypeAlias = Literal[
    "max_cycles_reached",
    "model_reply_unreadable",
    "model_unavailable",
    "model_refused",
    "model_misconfigured",
]


class CritiqueRefineInput(BaseModel):
    """A message to write to a customer."""

    prompt: str = Field(
        min_length=1, max_length=20_000, description="What the message is for, in the words of whoever asks"
    )
    contact_id: str = Field(
        min_length=1, max_length=200, description="The CRM contact the message is written to"
    )
    instruction: str = Field(
        "", max_length=20_000, description="How it is to be written, read beside the writer's own rules"
    )
    background: str = Field(
        "", max_length=50_000, description="What else is known: information, not instructions"
    )
    quality_threshold: float = Field(
        0.85,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="The score from which a message is good enough, 0 to 1: the critic's 0 to 100 points "
        "divided by 100",
    )
    max_refinement_cycles: int = Field(
        3, ge=0, le=10, description="How often the message may be refined; 0: the first draft is only judged"
    )


class Scores(TypedDict):
    """The critic's points, 0 to 25 each."""

    personalization: int
    clarity: int
    tone: int
    effectiveness: int


class Critique(TypedDict):
    """What the critic says of one version."""

    scores: Scores
    total: Annotated[int, Field(description="Sum of the scores, 0 to 100")]
    strengths: list[str]
    weaknesses: list[str]
    improvements: Annotated[list[str], Field(description="What the refiner is told to change")]


class Validation(TypedDict):
    """Whether one version may be sent as it is."""

    approved: bool
    issues: Annotated[list[str], Field(description="What must be mended first; empty when approved")]


class Version(TypedDict):
    """One version of the message, with its judgements."""

    cycle: Annotated[int, Field(description="Refinements before it: 0 is the first draft")]
    text: str
    scores: Annotated[Scores | None, Field(description="null where the version could not be scored")]
    total: Annotated[int | None, Field(description="Sum of the scores, 0 to 100; null without them")]
    strengths: list[str]
    weaknesses: list[str]
    improvements: list[str]
    validation: Annotated[
        Validation | None, Field(description="null where the version could not be validated")
    ]


class CritiqueRefineState(ContextState):
    """The state of a thread; all but ``messages`` is about its latest run."""

    messages: Messages
    # A checkpoint keeps a text as jsonb; lists and mappings go into a blob, which takes anything.
    prompt: StoredText
    contact_id: StoredText
    # As given: only ``prepare`` sees them, so that a run without them does not get the last run's.
    instruction: Annotated[str, EphemeralValue]
    quality_threshold: Annotated[float, EphemeralValue]
    max_refinement_cycles: Annotated[int, EphemeralValue]
    # The same, or their defaults, for the run.
    guidance: StoredText
    threshold: float
    cycle_limit: int
    customer: ContactProfile
    # The current version: the text that would be sent, and what its judges said or why they could not.
    draft: StoredText
    critique: Critique | None
    critique_fault: Reason | None
    validation: Validation | None
    validation_fault: Reason | None
    cycles: int
    history: list[Version]
    success: bool
    output: StoredText
    score: float
    reason: Reason | None


class CritiqueRefineOutput(ContextOutput):
    """What became of the run. ``score``, ``critique`` and ``validation`` are those of ``output``."""

    success: Annotated[
        bool, Field(description="Whether the message reached the threshold and the validator approved it")
    ]
    output: Annotated[
        str, Field(description="The message, or its best version when success is false; empty: there is none")
    ]
    score: Annotated[
        float,
        Field(
            description="0 to 1: the critic's 0 to 100 points divided by 100; 0 as well where the message "
            "could not be scored, and critique is null"
        ),
    ]
    cycles: Annotated[int, Field(description="Refinements that were made")]
    critique: Annotated[Critique | None, Field(description="null where the message could not be scored")]
    validation: Annotated[
        Validation | None, Field(description="null where the message could not be validated")
    ]
    history: Annotated[list[Version], Field(description="Every version, in the order they were written")]
    reason: Annotated[Reason | None, Field(description="Why success is false; null otherwise")]
    messages: Annotated[list[AnyMessage], Field(description="The thread's conversation")]
