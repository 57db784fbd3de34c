"""What a parallel run is given, keeps and answers."""

from typing import Annotated, Literal, TypeAlias

from langchain_core.messages import AnyMessage
from langgraph.channels import EphemeralValue
from pydantic import BaseModel, Field, field_validator
from typing_extensions import TypedDict

from nodes.parallel.agents import AgentSpec
from nodes.parallel.state import DEFAULT_AGENTS
from nodes.shared.channels import Messages, StoredText
from nodes.shared.context import ContextOutput, ContextState

Mode: TypeAlias = Literal["first", "merge"]
Status: TypeAlias = Literal["answered", "failed", "timed_out", "cancelled"]
Reason: TypeAlias = Literal["first_answer", "merged", "only_answer", "not_merged", "no_branch_answered"]


class ParallelInput(BaseModel):
    """A question for several agents at once."""

    question: str = Field(
        min_length=1, max_length=10_000, description="What every agent answers, in the words of whoever asks"
    )
    contact_id: str = Field(
        min_length=1, max_length=200, description="The CRM contact it is about; tools act on no other"
    )
    agents: list[AgentSpec] = Field(
        DEFAULT_AGENTS, min_length=1, max_length=8, description="Who answers, each from its own sources"
    )
    mode: Mode = Field(
        "merge",
        description="first: the first good answer, at which the other agents are cancelled; merge: one "
        "answer made of all good ones",
    )
    branch_timeout_seconds: float = Field(
        60, ge=1, le=300, allow_inf_nan=False, description="Most seconds one agent may take"
    )

    @field_validator("agents")
    @classmethod
    def _agents_differ(cls, agents: list[AgentSpec]) -> list[AgentSpec]:
        if len({agent["name"].casefold() for agent in agents}) < len(agents):
            raise ValueError("the names of agents must differ from each other by more than case")
        return agents


class Branch(TypedDict):
    """What became of one agent."""

    name: str
    status: Status
    answer: Annotated[
        str, Field(description="Its answer; of one that failed, how far it got; of the others, empty")
    ]
    reason: Annotated[str, Field(description="Why there is no answer; empty when it answered")]


class BranchInput(TypedDict):
    """What one ``branch`` task is sent. ``race`` names the run's race; empty where there is none.

    ``background`` is what its agent is told beside the question.
    """

    agent: AgentSpec
    question: str
    contact_id: str
    seconds: float
    race: str
    background: str


def _gathered(branches: list[Branch], new: list[Branch]) -> list[Branch]:
    """More branches; an empty list begins a run."""
    return [*branches, *new] if new else []


class ParallelState(ContextState):
    """The state of a thread; all but ``messages`` is about its latest run."""

    messages: Messages
    question: StoredText
    contact_id: StoredText
    # As given: only ``prepare`` sees them, so that a run without them does not get the last run's.
    agents: Annotated[list[AgentSpec], EphemeralValue]
    mode: Annotated[Mode, EphemeralValue]
    branch_timeout_seconds: Annotated[float, EphemeralValue]
    # The same for the run.
    asked: list[AgentSpec]
    seconds: float
    # The run's race; empty where its answers are merged.
    race: str
    branches: Annotated[list[Branch], _gathered]
    success: bool
    answer: StoredText
    answered_by: list[str]
    reason: Reason | None


class ParallelOutput(ContextOutput):
    """What became of the run."""

    success: Annotated[bool, Field(description="Whether one answer came of it")]
    answer: Annotated[
        str,
        Field(
            description="The answer; the answers side by side when they were not merged; else what is missing"
        ),
    ]
    answered_by: Annotated[list[str], Field(description="The agents whose answers are in the answer")]
    branches: Annotated[list[Branch], Field(description="What became of each agent, in their order")]
    reason: Annotated[
        Reason | None,
        Field(
            description="first_answer: it came first; merged: several were merged; only_answer: one agent "
            "alone answered; not_merged: several answered, but merging them failed; no_branch_answered"
        ),
    ]
    messages: Annotated[list[AnyMessage], Field(description="The thread's conversation")]
