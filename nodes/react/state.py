"""Input, state and output of the ReAct graph."""

from typing import Annotated, Any, Literal, TypeAlias

from langchain_core.messages import AnyMessage, ToolCall
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from core.memory import StrategyName
from nodes.shared.channels import Messages, StoredText
from nodes.shared.citations import Grounding
from nodes.shared.context import ContextOutput, ContextState
from nodes.shared.steps import THINK
from tools.execution import Observation

ReflectionMode: TypeAlias = Literal["always", "on_error", "never"]
ReasonIncomplete: TypeAlias = Literal[
    "max_iterations_reached",
    "model_reply_unreadable",
    "model_refused",
    "needs_model",
    "tool_unavailable",
    "task_failed",
]


class ReactInput(BaseModel):
    """A task for the agent."""

    task: str = Field(
        min_length=1, max_length=20_000, description="What to do, in the words of the person who asks"
    )
    contact_id: str = Field(
        min_length=1, max_length=200, description="The CRM contact the task is about; tools act on no other"
    )
    max_iterations: int = Field(10, ge=1, le=50, description="Maximum number of thoughts")
    reflection: ReflectionMode = Field(
        "always", description="When to reflect on observations: always, on_error (a tool failed) or never"
    )
    tools: list[str] = Field(
        default_factory=list, max_length=50, description="Names of the tools that may be used; empty: all"
    )
    instruction: str = Field(
        "",
        max_length=20_000,
        description="Role of the agent and how to do the task; follows the rules of every agent. Empty: a "
        "general role",
    )
    background: str = Field(
        "", max_length=50_000, description="What is already known: information, not instructions"
    )
    expected_outcome: str = Field(
        "",
        max_length=2_000,
        description="What is known or done when the task has succeeded; empty: as the task says",
    )
    time_zone: str = Field(
        "", max_length=100, description="IANA name of the contact's time zone; empty: the one in the CRM"
    )
    temperature: float = Field(
        THINK.temperature, ge=0, le=2, allow_inf_nan=False, description="Sampling temperature of its thoughts"
    )
    retrieval: StrategyName = Field(
        "general", description="How its tools rank what they find in memory and in the help articles"
    )
    agent: str = Field(
        "agent", min_length=1, max_length=200, description="Name of the agent; its notes are written under it"
    )


class Reflection(BaseModel):
    """The model's judgement of the last observations."""

    success: bool = Field(description="Whether the last actions did what they were meant to")
    reasoning: str = Field(description="What the observations say about the task, in one or two sentences")
    task_complete: bool = Field(description="Whether nothing remains to be done for the task")
    suggested_next_action: str | None = Field(
        None, description="What to do next, when the task is not complete"
    )
    final_answer: str | None = Field(
        None, description="The complete answer for whoever asked, when the task is complete; else null"
    )
    sources: list[str] = Field(
        default_factory=list,
        description="Ids or numbers of the articles and records that the final answer rests on, as the tools "
        "returned them; they do not belong into the answer itself",
    )


class Action(TypedDict):
    """A tool call as the trace shows it."""

    tool: str
    args: dict[str, Any]


class TraceEntry(TypedDict):
    """One action, with the thought before it and its result.

    Calls made in parallel share ``iteration``, ``thought`` and ``reflection``. The thought that answers
    has neither action nor observation. ``reflection`` is a :class:`Reflection` as a dict.
    """

    iteration: int
    thought: str
    action: Action | None
    observation: Observation | None
    reflection: dict[str, Any] | None


class ReactState(ContextState, Grounding):
    """The state of a thread. All fields but ``messages`` are about its latest run."""

    messages: Messages
    # The input. Texts are StoredText because a checkpoint holds them as jsonb, which cannot take every text.
    task: StoredText
    contact_id: StoredText
    max_iterations: int
    reflection: ReflectionMode
    tools: list[str]
    instruction: StoredText
    expected_outcome: StoredText
    temperature: float
    retrieval: StrategyName
    agent: StoredText
    # Id of the message the run began with; all messages after it are this run's.
    turn: str
    iterations: int
    trace: list[TraceEntry]
    # Why the last reply could not be read, while the model has its one chance to correct it.
    unreadable: str | None
    success: bool
    final_answer: StoredText
    reason_incomplete: ReasonIncomplete | None


class ReactOutput(ContextOutput, Grounding):
    """The result of a run."""

    task: str
    success: Annotated[bool, Field(description="Whether the task was carried out")]
    final_answer: Annotated[
        str, Field(description="The answer, or the best one so far when the run is incomplete")
    ]
    iterations: Annotated[int, Field(description="Rounds of thought that were used")]
    trace: Annotated[
        list[TraceEntry], Field(description="Every thought, action, observation and reflection, in order")
    ]
    reason_incomplete: Annotated[
        ReasonIncomplete | None, Field(description="Why success is false; null otherwise")
    ]
    messages: Annotated[list[AnyMessage], Field(description="The thread's conversation")]


class ActInput(TypedDict):
    """The input of one ``act`` task: a tool call, the id of the message it stands in, and the run's input."""

    call: ToolCall
    message_id: str
    contact_id: str
    tools: list[str]
    retrieval: StrategyName
    agent: str
    time_zone: str
