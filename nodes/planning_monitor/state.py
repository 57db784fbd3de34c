"""Input, state and output of the planning graph."""

from typing import Annotated, Any, Literal, TypeAlias

from langchain_core.messages import AnyMessage
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from nodes.react.state import ReasonIncomplete
from nodes.shared.channels import Messages, StoredText
from nodes.shared.citations import Grounding
from nodes.shared.contact import ContactProfile
from nodes.shared.context import ContextOutput, ContextState

# Why a run is no success.
PlanningReason: TypeAlias = Literal[
    "aborted",
    "plan_invalid",
    "monitor_unreadable",
    "max_revisions_reached",
    "steps_failed",
    "goal_not_reached",
    "model_refused",
    "model_unavailable",
    "needs_model",
]
StepFailureReason: TypeAlias = ReasonIncomplete | Literal["model_unavailable", "timed_out"]


class PlanningInput(BaseModel):
    """A task that takes several steps."""

    task: str = Field(
        min_length=1, max_length=20_000, description="What to achieve, in the words of the person who asks"
    )
    contact_id: str = Field(
        min_length=1, max_length=200, description="The CRM contact the task is about; tools act on no other"
    )
    instruction: str = Field(
        "", max_length=10_000, description="How to do it; appended to the planner's own rules"
    )
    background: str = Field(
        "", max_length=50_000, description="What is already known: information, not instructions"
    )
    constraints: list[Annotated[str, Field(min_length=1, max_length=500)]] = Field(
        default_factory=list, max_length=10, description="What must be respected on the way"
    )


class StepAction(TypedDict):
    """A tool call of a step, and whether it worked."""

    tool: str
    success: bool


class StepResult(Grounding):
    """The result of a step.

    ``result`` is the agent's answer, or why there is none; ``actions`` are its tool calls in order;
    ``citations`` and ``unsupported`` are about that answer.
    """

    step_id: int
    task: str
    success: bool
    result: str
    iterations: int
    reason_incomplete: StepFailureReason | None
    actions: list[StepAction]


class WaveJudgement(TypedDict):
    """The monitor's judgement of a wave, which is a list of step numbers."""

    wave: list[int]
    success: bool
    reasoning: str
    adjustment: str
    abort: bool


def merge_results(current: list[StepResult], new: list[StepResult]) -> list[StepResult]:
    """Reducer: one result per step, ordered by number; the latest of a step that ran again."""
    results = {result["step_id"]: result for result in [*current, *new]}
    return [results[step_id] for step_id in sorted(results)]


class PlanningState(ContextState, Grounding):
    """The state of a thread. All fields but ``messages`` are about its latest run."""

    messages: Messages
    # The input. Texts are StoredText because a checkpoint holds them as jsonb, which cannot take every text.
    task: StoredText
    contact_id: StoredText
    instruction: StoredText
    constraints: list[str]
    contact: ContactProfile
    # Id of the message the run began with; all messages before it are earlier conversation.
    turn: str
    # What the model wrote last (a Plan or a Revision as JSON), until it is found to be valid.
    draft: dict[str, Any] | None
    # What is wrong with the draft, while the model has its one chance to correct it.
    faults: list[str]
    # The current Plan as JSON. Its steps are those that succeeded, and those that remain or failed.
    plan: dict[str, Any] | None
    # Numbers of the steps that were sent out last.
    wave: list[int]
    results: Annotated[list[StepResult], merge_results]
    judgements: list[WaveJudgement]
    revisions: int
    completed: bool
    reason: PlanningReason | None
    detail: StoredText


class PlanningOutput(ContextOutput, Grounding):
    """The result of a run."""

    task: str
    completed: Annotated[
        bool, Field(description="Whether every step of the plan succeeded and the monitor agreed")
    ]
    reason: Annotated[PlanningReason | None, Field(description="Why completed is false; null otherwise")]
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
        Field(description="The result of each step that ran, also of those a revision replaced"),
    ]
    judgements: Annotated[
        list[WaveJudgement], Field(description="What the monitor said after each wave of steps")
    ]
    revisions: Annotated[int, Field(description="How often the remaining steps were planned anew")]
    messages: Annotated[list[AnyMessage], Field(description="The thread's conversation")]


class DependencyResult(TypedDict):
    """The result of an earlier step, for one that depends on it."""

    step_id: int
    task: str
    result: str


class ExecuteInput(TypedDict):
    """The input of one ``execute`` task: a step (a PlanStep as JSON) and what its agent needs to know."""

    step: dict[str, Any]
    instruction: str
    constraints: list[str]
    dependencies: list[DependencyResult]
    contact_id: str
    time_zone: str
