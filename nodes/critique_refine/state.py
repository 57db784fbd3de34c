"""Input, state and output of the critique-and-refine graph."""

from typing import Annotated, Literal, TypeAlias

from langchain_core.messages import AnyMessage
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from nodes.shared.channels import Messages, StoredText
from nodes.shared.citations import Grounding
from nodes.shared.contact import ContactProfile
from nodes.shared.context import ContextOutput, ContextState

# Why a run is no success. The model's reasons are the codes of its errors.
CritiqueRefineReason: TypeAlias = Literal[
    "max_cycles_reached",
    "model_reply_unreadable",
    "model_unavailable",
    "model_refused",
    "model_misconfigured",
    "needs_model",
]


class CritiqueRefineInput(BaseModel):
    """A message to write to a customer."""

    prompt: str = Field(
        min_length=1,
        max_length=20_000,
        description="What the message is for, in the words of the person who asks",
    )
    contact_id: str = Field(
        min_length=1, max_length=200, description="The CRM contact the message is written to"
    )
    instruction: str = Field(
        "", max_length=20_000, description="How to write it; appended to the writer's own rules"
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
    """The critic's judgement of one version."""

    scores: Scores
    total: Annotated[int, Field(description="Sum of the scores, 0 to 100")]
    strengths: list[str]
    weaknesses: list[str]
    improvements: Annotated[list[str], Field(description="What the refiner is told to change")]


class Validation(TypedDict):
    """Whether one version may be sent as it is."""

    approved: bool
    issues: Annotated[list[str], Field(description="What must be fixed first; empty when approved")]


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


class CritiqueRefineState(ContextState, Grounding):
    """The state of a thread. All fields but ``messages`` are about its latest run."""

    messages: Messages
    # The input. Texts are StoredText because a checkpoint holds them as jsonb, which cannot take every text.
    prompt: StoredText
    contact_id: StoredText
    instruction: StoredText
    quality_threshold: float
    max_refinement_cycles: int
    customer: ContactProfile
    # The current version, and the judgements of it or why there is none.
    draft: StoredText
    critique: Critique | None
    critique_fault: CritiqueRefineReason | None
    validation: Validation | None
    validation_fault: CritiqueRefineReason | None
    cycles: int
    history: list[Version]
    success: bool
    output: StoredText
    score: float
    reason: CritiqueRefineReason | None


class CritiqueRefineOutput(ContextOutput, Grounding):
    """The result of a run. ``score``, ``critique`` and ``validation`` are those of ``output``."""

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
    cycles: Annotated[int, Field(description="How often the message was refined")]
    critique: Annotated[Critique | None, Field(description="null where the message could not be scored")]
    validation: Annotated[
        Validation | None, Field(description="null where the message could not be validated")
    ]
    history: Annotated[list[Version], Field(description="Every version, in the order they were written")]
    reason: Annotated[CritiqueRefineReason | None, Field(description="Why success is false; null otherwise")]
    messages: Annotated[list[AnyMessage], Field(description="The thread's conversation")]
