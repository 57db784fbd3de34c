"""Input, output and state of a hierarchical run."""

from collections.abc import Sequence
from typing import Annotated, Literal, NotRequired, TypeAlias

from langchain_core.messages import AnyMessage
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from nodes.shared.channels import Messages, StoredText
from nodes.shared.context import ContextOutput, ContextState

Status: TypeAlias = Literal["pending", "done", "failed", "skipped"]
# ``decision_unreadable``: a reply of the manager could not be read, twice; ``decomposition_invalid``: its
# subtasks could not be carried out, twice.
Reason: TypeAlias = Literal[
    "max_rounds_reached",
    "decomposition_invalid",
    "decision_unreadable",
    "subtasks_failed",
    "model_refused",
    "model_unavailable",
    "needs_model",
]


class SubAgent(TypedDict):
    """One of the agents that the manager assigns subtasks to."""

    name: Annotated[
        str,
        Field(
            max_length=64,
            pattern=r"^[A-Za-z][A-Za-z0-9_]*$",
            description="Names the sub-agent; must be unique",
        ),
    ]
    description: Annotated[
        str, Field(min_length=1, max_length=500, description="What it is for; the manager chooses by this")
    ]
    instruction: NotRequired[
        Annotated[
            str, Field("", max_length=4_000, description="How it works, addressed to it; empty: nothing more")
        ]
    ]
    tools: NotRequired[
        Annotated[
            list[Annotated[str, Field(max_length=100)]],
            Field([], max_length=50, description="Names of the tools it may use; none: all"),
        ]
    ]


class HierarchicalInput(BaseModel):
    """A task for a manager and its sub-agents."""

    task: str = Field(min_length=1, max_length=20_000, description="What to do, in the words of whoever asks")
    contact_id: str = Field(
        min_length=1, max_length=200, description="The CRM contact the task is about; tools act on no other"
    )
    sub_agents: list[SubAgent] = Field(
        [],
        max_length=20,
        description="The sub-agents the manager divides the task over; none: the graph's own team",
    )
    max_rounds: int = Field(
        3, ge=1, le=10, description="Maximum rounds of subtasks; after each the manager decides what is next"
    )
    background: str = Field(
        "",
        max_length=38_000,
        description="What is known already; the manager and every sub-agent read it as information, not as "
        "instructions",
    )
    time_zone: str = Field(
        "", max_length=100, description="IANA name of the contact's time zone; empty: the one in the CRM"
    )


class Subtask(TypedDict):
    """One part of the task."""

    id: Annotated[str, Field(description="t1, t2, … in the order the manager named them")]
    agent: Annotated[str, Field(description="Name of the sub-agent it was given to")]
    task: Annotated[str, Field(description="What the sub-agent was asked to do")]
    depends_on: Annotated[list[str], Field(description="Ids of the subtasks whose results it was given")]
    status: Annotated[
        Status,
        Field(description="skipped: a subtask it depends on was not done; pending: not yet carried out"),
    ]
    result: Annotated[str, Field(description="What the sub-agent answered; empty if it did not")]
    reason: Annotated[str | None, Field(description="Why it failed or was skipped; null otherwise")]


def merge_subtasks(current: Sequence[Subtask], new: Sequence[Subtask]) -> list[Subtask]:
    """Reducer: replace subtasks by their new version and append new ones, in the order of their numbers.

    Workers that end in the same step each write their own subtask, in any order.
    """
    by_id = {subtask["id"]: subtask for subtask in [*current, *new]}
    return sorted(by_id.values(), key=lambda subtask: get_number(subtask["id"]))


def build_id(number: int) -> str:
    """Return the id of the subtask that the manager sees under this number."""
    return f"t{number}"


def get_number(subtask_id: str) -> int:
    """Return the number under which the manager sees a subtask."""
    return int(subtask_id.removeprefix("t"))


class HierarchicalState(ContextState):
    """The state of a thread; everything but ``messages`` is about its latest run."""

    messages: Messages
    task: StoredText
    contact_id: StoredText
    # ``prepare`` replaces an empty list by the graph's own team.
    sub_agents: list[SubAgent]
    max_rounds: int
    rounds: int
    subtasks: Annotated[list[Subtask], merge_subtasks]
    # What is wrong with the manager's last subtasks, while it has its one chance to fix them; else empty.
    feedback: StoredText
    success: bool
    result: StoredText
    reason: Reason | None


class HierarchicalOutput(ContextOutput):
    """The outcome of the run."""

    success: Annotated[bool, Field(description="Whether the task was carried out")]
    result: Annotated[str, Field(description="The answer, or the best one so far when the run is incomplete")]
    subtasks: Annotated[list[Subtask], Field(description="Every part of the task and its outcome")]
    rounds: Annotated[int, Field(description="Rounds of subtasks that were started")]
    reason: Annotated[Reason | None, Field(description="Why success is false; null otherwise")]
    messages: Annotated[list[AnyMessage], Field(description="The thread's conversation")]


class WorkInput(TypedDict):
    """What one ``work`` task is sent: its subtask, the agent that does it, and what it builds on."""

    subtask: Subtask
    agent: SubAgent
    results: list[Subtask]
    background: str
    contact_id: str
    time_zone: str
