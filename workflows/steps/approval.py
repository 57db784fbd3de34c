"""``approval``: a person decides."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from workflows.definition.base import StepBase
from workflows.fields import TemplateJson, TemplateText


class Approval(StepBase):
    """Ask a person at ``/v1/approvals``; output: ``{decision, reason, data}``."""

    type: Literal["approval"]
    question: Annotated[TemplateText, StringConstraints(min_length=1)]
    details: TemplateJson = Field(None, description="Shown with the question")
    on_reject: Literal["fail", "continue"] = Field(
        "fail", description="Whether a rejection is a failure of the step, or an output to branch on"
    )
