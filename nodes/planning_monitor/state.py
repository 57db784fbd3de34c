"""What a planned run is given, keeps and answers."""

from typing import Annotated, Any, Literal, TypeAlias

from langchain_core.messages import AnyMessage
from langgraph.channels import EphemeralValue
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from nodes.react.state import ReasonIncomplete
from nodes.shared.channels import Messages, StoredText
from nodes.shared.contact import ContactProfile
from nodes.shared.context import ContextOutput, ContextState

Reason: TypeAlias = Literal[
    "aborted",
    "plan_invalid",
    "monitor_unreadable",
    "max_revisions_reached",
    "steps_failed",
    "goal_not_reached",
    "model_refused",
    "model_unavailable",
]
WhyStepFailed: TypeAlias = ReasonIncomplete | Literal["model_unavailable", "timed_out"]


class PlanningInput(BaseModel):
    """A task that takes several steps."""

    task: str = Field(
        min_length=1, max_length=20_000, description="What to reach, in the words of whoever asks"
    )
    contact_id: str = Field(
        min_length=1, max_length=200, description="The CRM contact the task is about; tools act on no other"
    )
    instruction: str = Field(
        "", max_length=10_000, description="How to go about it, read beside the planner's own rules"
    )
    background: str = Field(
        "", max_length=50_000, description="What is known already: information, not instructions"
    )
    constraints: list[Annotated[str, Field(min_length=1, max_length=500)]] = Field(
        default_factory=list, max_length=10, description="What must be kept to on the way; none: nothing said"
    )


class Action(TypedDict):
    """A tool call of a step, and whether it worked."""

    tool: str
    success: bool


class StepResult(TypedDict):
    """What became of a step.

    ``result`` is the agent's answer, or why there is none; ``actions`` are its tool calls in order.
    """

    step_id: int
    task: str
    success: bool
    result: str
    iterations: int
    reason_incomplete: WhyStepFailed | None
    actions: list[Action]


class Judged(TypedDict):
    """The monitor's judgement of a wave, which is a list of steps by number."""

    wave: list[int]
    success: bool
    reasoning: str
    adjustment: str
    abort: bool


def gathered(kept: list[StepResult], new: list[StepResult]) -> list[StepResult]:
    """One result a step, by number; a step that ran again has its latest."""
    results = {result["step_id"]: result for result in [*kept, *new]}
    return [results[step_id] for step_id in sorted(results)]


class PlanningState(ContextState):
    """The state of a thread; all but ``messages`` is about its latest run."""

    messages: Messages
    # A checkpoint keeps a text as jsonb; lists and objects go into a blob, which takes anything.
    task: StoredText
    contact_id: StoredText
    # As given: only ``prepare`` sees them, so that a run without them does not get the last run's.
    constraints: Annotated[list[str], EphemeralValue]
    instruction: Annotated[str, EphemeralValue]
    # The same for the run.
    kept_constraints: list[str]
    guidance: StoredText
    contact: ContactProfile
    # Id of the message the current run began with; everything before it is earlier conversation.
    turn: str
    # What a model wrote (a Plan or a Revision as JSON), until it is found to hold.
    draft: dict[str, Any] | None
    # What is wrong with the draft, while the model has its one chance to mend it.
    faults: list[str]
    # The Plan in force, as JSON. Its steps are those that succeeded and those that remain or failed.
    plan: dict[str, Any] | None
    # Numbers of the steps that were sent out last.
    wave: list[int]
    results: Annotated[list[StepResult], gathered]
    judgements: list[Judged]
    revisions: int
    completed: bool
    reason: Reason | None
    detail: StoredText


class PlanningOutput(ContextOutput):
    """What became of the run."""

    task: str
    completed: Annotated[
        bool, Field(description="Whether every step of the plan succeeded and the monitor agreed")
    ]
    reason: Annotated[Reason | None, Field(description="Why completed is false; null otherwise")]
    detail: Annotated[str, Field(description="The reason in words; empty when completed")]
    plan: Annotated[
        dict[str, Any] | None,
        Field(
            description="goal_analysis, sub_goals, steps, risks and monitoring, as last revised; null when "
            "no valid plan could be made"
        ),
    ]
    results: Annotated[
        list[StepResult],
        Field(description="What became of each step that ran, also of those a revision replaced"),
    ]
    judgements: Annotated[list[Judged], Field(description="What the monitor said after each wave of steps")]
    revisions: Annotated[int, Field(description="How often the remaining steps were planned anew")]
    messages: Annotated[list[AnyMessage], Field(description="The thread's conversation")]


class Before(TypedDict):
    """What an earlier step brought, for one that depends on it."""

    step_id: int
    task: str
    result: str


class ExecuteInput(TypedDict):
    """What one ``execute`` task is sent: a step (a PlanStep as JSON), and all its agent is told."""

    step: dict[str, Any]
    guidance: str
    constraints: list[str]
    before: list[Before]
    contact_id: str
