"""The input, output and state of an onboarding."""

from typing import Annotated, Any, Literal, TypeAlias, get_args

from langchain_core.messages import AnyMessage
from langgraph.channels import EphemeralValue
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from typing_extensions import TypedDict

from core.texts import Language
from nodes.shared.channels import Messages, StoredText

Status: TypeAlias = Literal["in_progress", "paused", "completed", "handed_over"]
# In the order they are asked.
Question: TypeAlias = Literal[
    "company_size",
    "industry",
    "use_case",
    "team_size",
    "tour",
    "integration",
    "connected",
    "first_task",
    "success",
]
StepName: TypeAlias = Literal["welcome", "profile", "tour", "integration", "first_task", "success"]
StepStatus: TypeAlias = Literal["pending", "waiting", "done", "skipped"]
Team: TypeAlias = Literal["customer_success", "technical_support"]
SizeField: TypeAlias = Literal["company_size", "team_size"]
ProfileField: TypeAlias = Literal[SizeField, "industry", "use_case"]

QUESTIONS: tuple[Question, ...] = get_args(Question)
SIZES: tuple[SizeField, ...] = get_args(SizeField)
PROFILE: tuple[ProfileField, ...] = ("company_size", "industry", "use_case", "team_size")
# Answered by yes or no; the others by what they ask for.
CONFIRMATIONS: frozenset[Question] = frozenset({"tour", "connected", "success"})
Presented: TypeAlias = Literal["welcome", "tour", "guide", "first_task", "help_connected", "help_success"]

MAX_REPLY_CHARACTERS = 4_000


class OnboardingInput(BaseModel):
    """Start a customer's onboarding, or continue the one on this thread."""

    contact_id: str = Field(min_length=1, max_length=200, description="The CRM contact who is onboarded")
    message: str = Field(
        "",
        max_length=MAX_REPLY_CHARACTERS,
        description="The customer's message, if the run begins with one; it is read like a reply. While a "
        "question waits, send the reply as {'resume': {'reply': ...}}",
    )


class Reply(BaseModel):
    """The customer's reply to a question."""

    model_config = ConfigDict(extra="forbid")

    reply: Annotated[str, StringConstraints(strip_whitespace=True)] = Field(
        min_length=1, max_length=MAX_REPLY_CHARACTERS, description="The customer's reply, in their words"
    )

    @model_validator(mode="before")
    @classmethod
    def _accept_bare_text(cls, value: Any) -> Any:
        return {"reply": value} if isinstance(value, str) else value


class QuestionToCustomer(TypedDict):
    """The value of an onboarding's interrupt: a question to the customer, not to the company."""

    kind: Literal["question"]
    question: Annotated[Question, Field(description="Which question")]
    text: Annotated[str, Field(description="The whole text to show the customer")]
    contact_id: str


class Profile(TypedDict):
    """The profile of the customer's company; null: unknown."""

    company_size: Annotated[int | None, Field(description="How many people work there")]
    industry: str | None
    use_case: Annotated[str | None, Field(description="What they want to use the product for")]
    team_size: Annotated[int | None, Field(description="How many people will use the product")]


class Outcome(TypedDict):
    """The outcome of one question."""

    status: Literal["known", "answered", "confirmed", "skipped"]
    reason: str


class Step(TypedDict):
    """One step of the journey."""

    name: StepName
    status: StepStatus
    reason: Annotated[str, Field(description="Why it, or a part of it, was skipped; empty: nothing was")]


class Handoff(TypedDict):
    """Whether a person of the company takes over."""

    required: bool
    team: Annotated[Team | None, Field(description="Who takes over; null while nobody has to")]
    reason: Annotated[str, Field(description="Why; empty while nobody has to")]


class CrmWrite(TypedDict):
    """A change for the CRM that is not confirmed yet; it is retried with the same idempotency key."""

    kind: Literal["profile", "follow_up", "handoff"]
    key: str
    body: dict[str, str | int]


class Customer(TypedDict):
    """The customer of the thread's journey, as the CRM knows them."""

    id: str
    name: str
    # Whether the run has read the CRM's record.
    loaded: bool


NO_HANDOFF = Handoff(required=False, team=None, reason="")


class OnboardingState(TypedDict):
    """The state of a thread: one customer's journey, over any number of runs."""

    messages: Messages
    # For ``prepare`` alone; ephemeral, so that a run without them does not see the last run's.
    contact_id: Annotated[str, EphemeralValue]
    message: Annotated[str, EphemeralValue]
    customer: Customer
    language: Language
    profile: Profile
    # What the customer wants to connect, and what they want to do first, in their words.
    integration: StoredText
    first_task: StoredText
    outcomes: dict[Question, Outcome]
    # What was presented already; it is not repeated after a pause.
    presented: list[Presented]
    # Paragraphs of the next message: a turn sends a single message.
    paragraphs: list[str]
    question: Question | None
    # The text of the question, with everything before it in the same message.
    question_text: StoredText
    # The reply that was not read yet; empty: none.
    reply: StoredText
    # Unusable replies in a row to the question; -1: the next one does not count.
    misses: int
    outbox: list[CrmWrite]
    # Number of changes so far, which makes their keys unique.
    write_count: int
    # Whether the customer was told that something could not be saved.
    outage_announced: bool
    status: Status
    steps: list[Step]
    handoff: Handoff
    unsaved: list[str]
    summary: StoredText


class OnboardingOutput(TypedDict):
    """The journey so far."""

    status: Annotated[
        Status,
        Field(
            description="in_progress: a question waits for the customer; paused: they want to continue later "
            "with a new run on the thread; completed; handed_over: a person of the company took over"
        ),
    ]
    steps: Annotated[list[Step], Field(description="The steps in their order")]
    profile: Annotated[Profile, Field(description="The profile of the customer's company")]
    handoff: Annotated[Handoff, Field(description="Whether a person takes over, who and why")]
    unsaved: Annotated[
        list[str],
        Field(description="Changes not saved in the CRM yet; each further run on the thread tries again"),
    ]
    summary: Annotated[
        str, Field(description="The session in words once it has ended; empty while a question waits")
    ]
    messages: Annotated[list[AnyMessage], Field(description="The thread's conversation")]
