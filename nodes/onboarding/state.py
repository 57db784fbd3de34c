"""What an onboarding is given, keeps and answers."""

from typing import Annotated, Literal, TypeAlias

from langchain_core.messages import AnyMessage
from langgraph.channels import EphemeralValue
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from typing_extensions import TypedDict

from core.texts import Language
from nodes.shared.channels import Messages, StoredText

Status: TypeAlias = Literal["in_progress", "paused", "completed", "handed_over"]
# In the order they are asked.
Question: TypeAlias = Literal[
    "company_size", "industry", "use_case", "team_size", "tour", "integration", "connected", "success"
]
StepName: TypeAlias = Literal["welcome", "profile", "tour", "integration", "success"]
StepStatus: TypeAlias = Literal["pending", "waiting", "done", "skipped"]
Team: TypeAlias = Literal["customer_success", "technical_support"]

MAX_REPLY_CHARACTERS = 4_000


class OnboardingInput(BaseModel):
    """Begin a customer's onboarding, or go on with the one this thread holds."""

    contact_id: str = Field(min_length=1, max_length=200, description="The CRM contact who is onboarded")
    message: str = Field(
        "",
        max_length=MAX_REPLY_CHARACTERS,
        description="What the customer wrote, if this run begins with a message of theirs; it is read like a "
        "reply. While a question waits, a reply is {'resume': {'reply': ...}}",
    )


class Reply(BaseModel):
    """What the customer answers."""

    model_config = ConfigDict(extra="forbid")

    reply: Annotated[str, StringConstraints(strip_whitespace=True)] = Field(
        min_length=1, max_length=MAX_REPLY_CHARACTERS, description="The customer's reply, in their words"
    )


class QuestionToCustomer(TypedDict):
    """What an interrupt of an onboarding holds: a question to the customer, not one to the company."""

    kind: Literal["question"]
    question: Annotated[Question, Field(description="Which question")]
    text: Annotated[str, Field(description="The whole text to show the customer")]
    contact_id: str


class Profile(TypedDict):
    """What is known of the customer's company; null: not known."""

    company_size: Annotated[int | None, Field(description="How many people work there")]
    industry: str | None
    use_case: Annotated[str | None, Field(description="What they want to use the product for")]
    team_size: Annotated[int | None, Field(description="How many people will use the product")]


class Outcome(TypedDict):
    """What became of one question."""

    status: Literal["known", "given", "confirmed", "skipped"]
    reason: str


class Step(TypedDict):
    """One step of the journey."""

    name: StepName
    status: StepStatus
    reason: Annotated[str, Field(description="Why it was skipped, or what of it was; empty: nothing was")]


class Handoff(TypedDict):
    """Whether a person of the company takes over."""

    required: bool
    team: Annotated[Team | None, Field(description="Who takes over; null while nobody has to")]
    reason: Annotated[str, Field(description="Why; empty while nobody has to")]


class Write(TypedDict):
    """A change for the CRM that is not known to be made yet; tried again under the same key."""

    kind: Literal["profile", "follow_up", "handoff"]
    key: str
    body: dict[str, str | int]


class Customer(TypedDict):
    """Whom the thread's journey is of, as the CRM knows them."""

    id: str
    name: str
    # Whether this run's CRM record was read.
    read: bool


def nobody_needed() -> Handoff:
    """No hand-over."""
    return Handoff(required=False, team=None, reason="")


class OnboardingState(TypedDict):
    """The state of a thread, which is one customer's journey over any number of runs."""

    messages: Messages
    # As given: only ``prepare`` sees them, so that a run without them does not get the last run's.
    contact_id: Annotated[str, EphemeralValue]
    message: Annotated[str, EphemeralValue]
    customer: Customer
    language: Language
    profile: Profile
    # What the customer wants to connect, in their words.
    integration: StoredText
    outcomes: dict[Question, Outcome]
    # What was told already: it is not told again after a pause.
    told: list[Literal["welcome", "tour", "guide"]]
    # For the next message: a turn is one message, whatever it is made of.
    said: list[str]
    question: Question | None
    asked: StoredText
    # Not read yet; empty: none.
    reply: StoredText
    # Unusable replies in a row to the question; -1: the first that comes does not count.
    misses: int
    outbox: list[Write]
    # Changes begun so far: each has its number in its key.
    writes: int
    # Whether the customer knows that something could not be saved.
    excused: bool
    status: Status
    steps: list[Step]
    handoff: Handoff
    unsaved: list[str]
    summary: StoredText


class OnboardingOutput(TypedDict):
    """What has become of the journey so far."""

    status: Annotated[
        Status,
        Field(
            description="in_progress: a question waits for the customer; paused: they want to go on later, "
            "which a new run on the thread does; completed; handed_over: a person of the company has it"
        ),
    ]
    steps: Annotated[list[Step], Field(description="The steps in their order")]
    profile: Annotated[Profile, Field(description="What is known of the customer's company")]
    handoff: Annotated[Handoff, Field(description="Whether a person takes over, who and why")]
    unsaved: Annotated[
        list[str],
        Field(description="What the CRM could not be told yet; each further run on the thread tries again"),
    ]
    summary: Annotated[
        str, Field(description="The session in words, once it ends; empty while a question waits")
    ]
    messages: Annotated[list[AnyMessage], Field(description="The thread's conversation")]
