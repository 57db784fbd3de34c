"""Input, output and state of a parallel run."""

from typing import Annotated, Literal, NotRequired, TypeAlias

from langchain_core.messages import AnyMessage
from pydantic import BaseModel, Field, StringConstraints, field_validator
from typing_extensions import TypedDict

from nodes.shared.channels import Messages, StoredText
from nodes.shared.context import ContextOutput, ContextState

Mode: TypeAlias = Literal["first", "merge"]
Status: TypeAlias = Literal["answered", "failed", "timed_out", "cancelled"]
Reason: TypeAlias = Literal["first_answer", "merged", "only_answer", "not_merged", "no_branch_answered"]


class ParallelAgent(TypedDict):
    """One agent: how it answers, and from which sources."""

    name: Annotated[
        str,
        StringConstraints(strip_whitespace=True, pattern=r"^[\w -]+$", min_length=1, max_length=80),
        Field(description="Names the branch; must be unique. Letters, digits, _, - and spaces"),
    ]
    instruction: Annotated[
        str, Field(min_length=1, max_length=2_000, description="How this agent answers, addressed to it")
    ]
    tools: NotRequired[
        Annotated[
            list[Annotated[str, Field(min_length=1, max_length=100)]],
            Field(
                max_length=20,
                description="Names of the tools it may use; none: those that only read. Tools with an effect "
                "have it in every branch that uses them, also in one that loses a race",
                json_schema_extra={"default": []},
            ),
        ]
    ]


DEFAULT_AGENTS: list[ParallelAgent] = [
    ParallelAgent(
        name="knowledge",
        instruction="Say what the help articles know: causes, limits and steps, with their exact numbers.",
        tools=["search_knowledge_base"],
    ),
    ParallelAgent(
        name="history",
        instruction="Say what past tickets tell: whether it happened before, and what helped.",
        tools=["search_past_tickets"],
    ),
    ParallelAgent(
        name="account",
        instruction="Say what the plan, the product version, the usage of limits and the platform's status "
        "have to do with it.",
        tools=["get_product_version", "check_service_status"],
    ),
]


class ParallelInput(BaseModel):
    """A question for several agents at once."""

    question: str = Field(
        min_length=1, max_length=10_000, description="What every agent answers, in the words of whoever asks"
    )
    contact_id: str = Field(
        min_length=1, max_length=200, description="The CRM contact it is about; tools act on no other"
    )
    agents: list[ParallelAgent] = Field(
        DEFAULT_AGENTS, min_length=1, max_length=8, description="Who answers, each from its own sources"
    )
    mode: Mode = Field(
        "merge",
        description="first: the first good answer, at which the other agents are cancelled; merge: one "
        "answer made of all good ones",
    )
    branch_timeout_seconds: float = Field(
        60, ge=1, le=300, allow_inf_nan=False, description="Maximum seconds one agent may take"
    )

    @field_validator("agents")
    @classmethod
    def _check_unique_names(cls, agents: list[ParallelAgent]) -> list[ParallelAgent]:
        if len({agent["name"].casefold() for agent in agents}) < len(agents):
            raise ValueError("the names of agents must differ from each other by more than case")
        return agents


class Branch(TypedDict):
    """The outcome of one agent."""

    name: str
    status: Status
    answer: Annotated[str, Field(description="Its answer, or how far it got when it failed; otherwise empty")]
    reason: Annotated[str, Field(description="Why there is no answer; empty when it answered")]


class BranchInput(TypedDict):
    """What one ``branch`` task is sent. ``race`` names the run's race; empty where there is none."""

    agent: ParallelAgent
    question: str
    contact_id: str
    timeout_seconds: float
    race: str
    background: str
    time_zone: str


def append_branches(branches: list[Branch], new: list[Branch]) -> list[Branch]:
    """Reducer: append the outcomes of further branches."""
    return [*branches, *new]


class ParallelState(ContextState):
    """The state of a thread; everything but ``messages`` is about its latest run."""

    messages: Messages
    question: StoredText
    contact_id: StoredText
    agents: list[ParallelAgent]
    mode: Mode
    branch_timeout_seconds: float
    # Names the run's race; empty where the answers are merged.
    race: str
    branches: Annotated[list[Branch], append_branches]
    success: bool
    answer: StoredText
    answered_by: list[str]
    reason: Reason | None


class ParallelOutput(ContextOutput):
    """The outcome of the run."""

    success: Annotated[bool, Field(description="Whether the run came to one answer")]
    answer: Annotated[
        str,
        Field(
            description="The answer; the answers side by side when they were not merged; else what is missing"
        ),
    ]
    answered_by: Annotated[list[str], Field(description="The agents whose answers are in the answer")]
    branches: Annotated[list[Branch], Field(description="The outcome of each agent, in their order")]
    reason: Annotated[
        Reason | None,
        Field(
            description="first_answer: it came first; merged: several were merged; only_answer: one agent "
            "alone answered; not_merged: several answered, but merging them failed; no_branch_answered"
        ),
    ]
    messages: Annotated[list[AnyMessage], Field(description="The thread's conversation")]
