"""``agent``: any graph of the service as a step."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from workflows.definition.base import StepBase
from workflows.fields import TemplateMap


class AgentCall(StepBase):
    """Run a graph on the workflow's thread; output: the graph's. Workflows cannot be steps of workflows."""

    type: Literal["agent"]
    graph: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")] = Field(
        description="Its name, e.g. react"
    )
    input: TemplateMap = Field({}, description="As the graph's input schema says")
    timeout_seconds: float = Field(300, gt=0, le=3_600, description="Of one attempt")
