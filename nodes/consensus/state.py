"""Input, output and state of a consensus, and the schemas voters and people answer with."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal, NotRequired, TypeAlias, TypeVar

from langchain_core.messages import AnyMessage
from pydantic import AfterValidator, BaseModel, Field, StringConstraints, create_model, field_validator
from typing_extensions import TypedDict

from nodes.consensus.tally import Rule, Tally
from nodes.shared.channels import Messages, StoredText
from nodes.shared.contact import ContactProfile
from nodes.shared.context import ContextOutput, ContextState

Reason: TypeAlias = Literal[
    "majority", "unanimous", "weighted", "quorum", "decided_by_human", "no_valid_votes", "needs_model"
]


def _require_one_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be one line, without control characters")
    return text


Line: TypeAlias = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1), AfterValidator(_require_one_line)
]

DEFAULT_OPTIONS = ["approve", "reject"]
DEFAULT_WEIGHT = 1.0


class Lens(TypedDict):
    """What one voter looks at."""

    name: Annotated[Line, Field(max_length=80, description="Names the voter; must be unique")]
    instruction: Annotated[
        str, Field(min_length=1, max_length=2_000, description="What this voter cares for, and what not")
    ]
    weight: NotRequired[
        Annotated[
            float,
            Field(
                gt=0,
                le=1_000,
                allow_inf_nan=False,
                description="How much the vote counts under the rule weighted; 1 if not given",
                json_schema_extra={"default": DEFAULT_WEIGHT},
            ),
        ]
    ]


# Five, because an odd number cannot tie over two options.
DEFAULT_LENSES: list[Lens] = [
    Lens(
        name="customer_advocate",
        instruction="Speak for this customer: what they need, what they were promised, how much trouble they "
        "have had already, and whether they would call the outcome fair.",
        weight=DEFAULT_WEIGHT,
    ),
    Lens(
        name="risk_and_compliance",
        instruction="Look for what could go wrong: law, privacy, contracts and policies, fraud and abuse, "
        "and harm that cannot be undone. Prefer what can be undone where the facts are thin.",
        weight=DEFAULT_WEIGHT,
    ),
    Lens(
        name="commercial",
        instruction="Weigh money: what the outcome costs now, what the customer is worth over the years, "
        "and whether it keeps them or teaches them to ask for more.",
        weight=DEFAULT_WEIGHT,
    ),
    Lens(
        name="operations",
        instruction="Ask whether it can be done: who would do it, how long it takes, what it displaces, and "
        "whether it holds when many customers ask the same.",
        weight=DEFAULT_WEIGHT,
    ),
    Lens(
        name="precedent",
        instruction="Think of every customer in the same situation: would the outcome be consistent with how "
        "others are treated, and would the company be content to see it become the rule?",
        weight=DEFAULT_WEIGHT,
    ),
]


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
    def _check_unique_options(cls, options: list[str]) -> list[str]:
        if not _are_distinct(options):
            raise ValueError("options must differ from each other by more than case")
        return options

    @field_validator("lenses")
    @classmethod
    def _check_unique_lenses(cls, lenses: list[Lens]) -> list[Lens]:
        if not _are_distinct(lens["name"] for lens in lenses):
            raise ValueError("the names of lenses must differ from each other by more than case")
        return lenses


def _are_distinct(names: Iterable[str]) -> bool:
    folded = [name.casefold() for name in names]
    return len(set(folded)) == len(folded)


class Vote(TypedDict):
    """One voter's vote."""

    voter: Annotated[str, Field(description="Name of the lens")]
    choice: Annotated[str, Field(description="One of the options; empty when the vote is not valid")]
    confidence: Annotated[float, Field(description="The voter's own, 0 to 1; the count does not use it")]
    reasoning: Annotated[str, Field(description="Why; of an invalid vote, why there is none")]
    valid: bool


class VoteInput(TypedDict):
    """What one ``vote`` task is sent: its lens, and the case as every voter sees it."""

    lens: Lens
    options: list[str]
    question: str
    background: str
    time_zone: str


def append_votes(votes: list[Vote], new: list[Vote]) -> list[Vote]:
    """Reducer: append further votes."""
    return [*votes, *new]


class ConsensusState(ContextState):
    """The state of a thread; everything but ``messages`` is about its latest run."""

    messages: Messages
    question: StoredText
    contact_id: StoredText
    options: list[str]
    lenses: list[Lens]
    rule: Rule
    quorum: float
    contact: ContactProfile
    votes: Annotated[list[Vote], append_votes]
    tally: Tally | None
    decision: StoredText
    comment: StoredText
    reason: Reason | None


class ConsensusOutput(ContextOutput):
    """The outcome of the run."""

    decision: Annotated[str, Field(description="The option that was decided for; empty when there is none")]
    votes: Annotated[list[Vote], Field(description="Every vote with its reasons, in the order of the lenses")]
    tally: Annotated[Tally | None, Field(description="The count; null before the votes are counted")]
    reason: Annotated[
        Reason | None,
        Field(
            description="What decided: the rule, or decided_by_human; no_valid_votes when nothing could; "
            "needs_model while a person is asked because no language model is configured; null while one is "
            "asked for another reason"
        ),
    ]
    comment: Annotated[str, Field(description="The comment of the person who decided; otherwise empty")]
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


ChoiceT = TypeVar("ChoiceT", Ballot, HumanDecision)


def limit_choice(schema: type[ChoiceT], options: list[str]) -> type[ChoiceT]:
    """Return the schema with a ``choice`` that accepts these options only."""
    choice: Any = (
        Literal[tuple(options)],
        Field(description=schema.model_fields["choice"].description),
    )
    return create_model(schema.__name__, __base__=schema, __doc__=schema.__doc__, choice=choice)
