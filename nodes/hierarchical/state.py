"""What a manager's run is given, keeps and answers."""

from collections.abc import Sequence
from typing import Annotated, Literal, NotRequired, TypeAlias

from langchain_core.messages import AnyMessage
from langgraph.channels import EphemeralValue
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from nodes.shared.channels import Messages, StoredText
from nodes.shared.context import ContextOutput, ContextState

Status: TypeAlias = Literal["pending", "done", "failed", "skipped"]
# ``decision_unreadable``: any reply of the manager that could not be read twice; ``decomposition_invalid``:
# one that could be read, but whose subtasks could twice not be carried out.
Reason: TypeAlias = Literal[
    "max_rounds_reached",
    "decomposition_invalid",
    "decision_unreadable",
    "subtasks_failed",
    "model_refused",
    "model_unavailable",
]


class SubAgent(TypedDict):
    """One of the agents the manager gives subtasks to."""

    name: Annotated[
        str,
        Field(
            max_length=64,
            pattern=r"^[A-Za-z][A-Za-z0-9_]*$",
            description="Names the sub-agent; no two are the same",
        ),
    ]
    description: Annotated[
        str, Field(min_length=1, max_length=500, description="What it is for; the manager chooses by this")
    ]
    instruction: NotRequired[
        Annotated[
            str, Field("", max_length=4_000, description="How it works, in words to it; empty: no more")
        ]
    ]
    tools: NotRequired[
        Annotated[
            list[Annotated[str, Field(max_length=100)]],
            Field([], max_length=50, description="Names of the tools it may use; none named: all"),
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
        3, ge=1, le=10, description="Most rounds of subtasks; after each the manager decides what is next"
    )
    background: str = Field(
        "",
        max_length=38_000,
        description="What is known already; the manager and every sub-agent read it as information, not as "
        "instructions",
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
    result: Annotated[str, Field(description="What the sub-agent answered; empty where it did not")]
    reason: Annotated[str | None, Field(description="Why it failed or was skipped; null otherwise")]


def merged(known: Sequence[Subtask], new: Sequence[Subtask]) -> list[Subtask]:
    """The known subtasks with the new ones in their place, or behind them where they were not known.

    Workers that end in the same step each bring their own, in any order. An empty list begins anew, in a form
    that a client of the stream can read.
    """
    if not new:
        return []
    by_id = {subtask["id"]: subtask for subtask in [*known, *new]}
    return sorted(by_id.values(), key=lambda subtask: number_of(subtask["id"]))


def id_of(number: int) -> str:
    """The id of the subtask the manager sees under this number."""
    return f"t{number}"


def number_of(subtask_id: str) -> int:
    """The number the manager sees a subtask under."""
    return int(subtask_id.removeprefix("t"))


class HierarchicalState(ContextState):
    """The state of a thread; all but ``messages`` is about its latest run."""

    messages: Messages
    # A checkpoint keeps a text as jsonb; lists go into a blob, which takes anything.
    task: StoredText
    contact_id: StoredText
    # As given: only ``prepare`` sees them, so that a run without them does not get the last run's.
    sub_agents: Annotated[list[SubAgent], EphemeralValue]
    max_rounds: Annotated[int, EphemeralValue]
    # The same, or their defaults, for the run.
    team: list[SubAgent]
    round_limit: int
    rounds: int
    subtasks: Annotated[list[Subtask], merged]
    # What was wrong with the subtasks the manager last named, while it has its one chance to mend them;
    # empty otherwise.
    told_back: StoredText
    success: bool
    result: StoredText
    reason: Reason | None


class HierarchicalOutput(ContextOutput):
    """What became of the run."""

    success: Annotated[bool, Field(description="Whether the task was carried out")]
    result: Annotated[str, Field(description="The answer, or the best one so far when the run is incomplete")]
    subtasks: Annotated[list[Subtask], Field(description="Every part of the task and what became of it")]
    rounds: Annotated[int, Field(description="Rounds of subtasks that were begun")]
    reason: Annotated[Reason | None, Field(description="Why success is false; null otherwise")]
    messages: Annotated[list[AnyMessage], Field(description="The thread's conversation")]


class WorkInput(TypedDict):
    """What one ``work`` task is sent: its subtask, who does it, and what it builds on."""

    subtask: Subtask
    agent: SubAgent
    results: list[Subtask]
    background: str
    contact_id: str
