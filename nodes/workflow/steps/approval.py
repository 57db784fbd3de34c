"""``approval``: an interrupt that a person answers at ``/v1/approvals``."""

from typing import Literal

from langgraph.types import interrupt
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from core.errors import StepFailed
from workflows.ports import StepCall
from workflows.steps.approval import Approval
from workflows.templates import Template


class WorkflowApproval(BaseModel):
    """What a person is asked."""

    type: Literal["workflow_approval"] = "workflow_approval"
    step: str = Field(description="The step that asks")
    question: str
    details: JsonValue = Field(description="What is needed to decide")


class WorkflowDecision(BaseModel):
    """What they decide."""

    model_config = ConfigDict(extra="forbid")

    decision: Literal["approve", "reject"]
    reason: str = Field("", max_length=2_000)
    data: JsonValue = Field(None, description="Anything the workflow should go on with")


async def approval(step: Approval, call: StepCall) -> JsonValue:
    """The executor.

    Raises:
        StepFailed: They rejected it, and the step says that this is a failure.
    """
    asked = WorkflowApproval(
        step=call.step_id,
        question=str(Template(step.question).render(call.context)),
        details=Template(step.details).render(call.context),
    )
    decided: WorkflowDecision = interrupt(asked.model_dump(), response_schema=WorkflowDecision)
    if decided.decision == "reject" and step.on_reject == "fail":
        raise StepFailed(f"rejected: {decided.reason}" if decided.reason else "rejected")
    return decided.model_dump()
