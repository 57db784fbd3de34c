"""What a consensus is given, keeps and answers."""

from typing import Annotated, Any, Literal, TypeAlias

from langchain_core.messages import AnyMessage
from langgraph.channels import EphemeralValue
from pydantic import BaseModel, Field, field_validator
from typing_extensions import TypedDict

from nodes.consensus.state import DEFAULT_LENSES, Lens
from nodes.consensus.tally import Rule, Tally
from nodes.consensus.texts import Line, differ
from nodes.shared.channels import Messages, StoredText
from nodes.shared.contact import ContactProfile
from nodes.shared.context import ContextOutput, ContextState

Reason: TypeAlias = Literal[
    "majority", "unanimous", "weighted", "quorum", "decided_by_human", "no_valid_votes"
]
DEFAULT_OPTIONS = ["approve", "reject"]


class ConsensusInput(BaseModel):
    """A question for a panel of voters."""

    question: str = Field(
        min_length=1, max_length=10_000, description="What is to be decided, with what there is to know"
    )
    contact_id: str = Field(
        min_length=1, max_length=200, description="The CRM contact it is about; voters see what the CRM knows"
    )
    options: list[Annotated[Line, Field(max_length=200)]] = Field(
        DEFAULT_OPTIONS, min_length=2, max_length=10, description="What there is to choose from, each once"
    )
    lenses: list[Lens] = Field(
        DEFAULT_LENSES, min_length=1, max_length=15, description="The voters, each with its own view"
    )
    rule: Rule = Field(
        "majority",
        description="majority: more than half of the valid votes; unanimous: all of them; weighted: more "
        "than half of their weight; quorum: the option that leads, with the quorum's fraction of all voters",
    )
    quorum: float = Field(
        0.5,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Fraction of the voters whose vote must be valid, under every rule; and the fraction of "
        "all voters an option needs under the rule quorum",
    )

    @field_validator("options")
    @classmethod
    def _options_differ(cls, options: list[str]) -> list[str]:
        if not differ(options):
            raise ValueError("options must differ from each other by more than case")
        return options

    @field_validator("lenses")
    @classmethod
    def _lenses_differ(cls, lenses: list[Lens]) -> list[Lens]:
        if not differ(lens["name"] for lens in lenses):
            raise ValueError("the names of lenses must differ from each other by more than case")
        return lenses


class Vote(TypedDict):
    """One voter's vote."""

    voter: Annotated[str, Field(description="Name of the lens")]
    choice: Annotated[str, Field(description="One of the options; empty when the vote is not valid")]
    confidence: Annotated[float, Field(description="The voter's own, 0 to 1; the count does not use it")]
    reasoning: Annotated[str, Field(description="Why; of an invalid vote, why there is none")]
    valid: bool


class Terms(TypedDict):
    """What the current run counts by."""

    options: list[str]
    lenses: list[Lens]
    rule: Rule
    quorum: float


class VoteInput(TypedDict):
    """What one ``vote`` task is sent: its lens, and the case as every voter sees it."""

    lens: Lens
    options: list[str]
    question: str
    contact: str


def _gathered(votes: list[Vote], new: list[Vote]) -> list[Vote]:
    """More votes; an empty list begins a run."""
    return [*votes, *new] if new else []


class ConsensusState(ContextState):
    """The state of a thread; all but ``messages`` is about its latest run."""

    messages: Messages
    question: StoredText
    contact_id: StoredText
    # As given: only ``prepare`` sees them, so that a run without them does not get the last run's.
    options: Annotated[list[str], EphemeralValue]
    lenses: Annotated[list[Lens], EphemeralValue]
    rule: Annotated[Rule, EphemeralValue]
    quorum: Annotated[float, EphemeralValue]
    # The same, or their defaults, for the run.
    terms: Terms
    contact: ContactProfile
    votes: Annotated[list[Vote], _gathered]
    tally: Tally | None
    decision: StoredText
    comment: StoredText
    reason: Reason | None


class ConsensusOutput(ContextOutput):
    """What became of the run."""

    decision: Annotated[str, Field(description="The option that was decided for; empty when there is none")]
    votes: Annotated[list[Vote], Field(description="Every vote with its reasons, in the order of the lenses")]
    tally: Annotated[Tally | None, Field(description="The count; null before the votes are counted")]
    reason: Annotated[
        Reason | None,
        Field(
            description="What decided: the rule, or decided_by_human; no_valid_votes when nothing could; "
            "null while a person is asked"
        ),
    ]
    comment: Annotated[str, Field(description="What the person who decided said of it; empty when none did")]
    messages: Annotated[list[AnyMessage], Field(description="The thread's conversation")]


class Ballot(BaseModel):
    """A vote as a voter writes it."""

    # First, so that a model reasons before it chooses.
    reasoning: str = Field(
        description="The reasons for the choice through the voter's lens, in two to four sentences"
    )
    choice: str = Field(description="The option voted for, in its exact words")
    confidence: float = Field(ge=0, le=1, description="How sure the voter is, from 0 to 1")


class HumanDecision(BaseModel):
    """What a person answers when the votes do not decide."""

    choice: str = Field(description="The option decided for, in its exact words")
    comment: str = Field("", max_length=4_000, description="Why, for the record")


def one_of(options: list[str]) -> Any:
    """The type of a choice among the options, for schemas that are made for one question."""
    return Literal[tuple(options)]
