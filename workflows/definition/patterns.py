"""How steps follow each other; every pattern is a step itself.

After van der Aalst et al. 2003 ("Workflow Patterns"): sequence, parallel split with synchronisation,
exclusive choice, structured loop, and multiple instances with knowledge from run time.
"""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from workflows.definition.base import PatternBase
from workflows.definition.conditions import Condition
from workflows.fields import ExpressionText
from workflows.steps.agent_call import AgentCall
from workflows.steps.api_call import ApiCall
from workflows.steps.approval import Approval
from workflows.steps.data_processing import DataProcessing
from workflows.steps.database_query import DatabaseQuery
from workflows.steps.wait import Wait

MOST_PARALLEL = 10_000
MOST_ITERATIONS = 10_000


class Sequential(PatternBase):
    """One step after the other."""

    type: Literal["sequential"]
    steps: "Steps"


class Parallel(PatternBase):
    """All steps at the same time; done when all are. Its output has theirs by their ids."""

    type: Literal["parallel"]
    steps: Annotated[list["Step"], Field(min_length=1, max_length=MOST_PARALLEL)]


class Conditional(PatternBase):
    """One way or the other. Its output: ``{branch}``, ``then`` or ``otherwise``."""

    type: Literal["conditional"]
    condition: Condition
    then: "Steps"
    otherwise: list["Step"] = Field([], max_length=1_000)


class Loop(PatternBase):
    """The steps again and again. Its output: ``{iterations}``."""

    type: Literal["loop"]
    steps: "Steps"
    max_iterations: int = Field(ge=1, le=MOST_ITERATIONS)
    break_condition: Condition | None = Field(
        None, description="Looked at after each iteration; none: all iterations"
    )


class FanOutFanIn(PatternBase):
    """Many at the same time, then what is made of their results.

    Without ``for_each`` the fan-out steps run beside each other, and the output has theirs by their ids. With
    it they run one after the other for each item of the list, all items beside each other, and the output is
    the list of the last one's outputs, null where it failed. The fan-in steps read it as
    ``steps.<id>.output``.
    """

    type: Literal["fan_out_fan_in"]
    for_each: ExpressionText = Field(
        "", description="A list of the context; the steps see item and index. None: the steps run once"
    )
    max_items: int = Field(1_000, ge=1, le=MOST_PARALLEL, description="A longer list is a failure")
    fan_out_steps: Annotated[list["Step"], Field(min_length=1, max_length=MOST_PARALLEL)]
    fan_in_steps: list["Step"] = Field([], max_length=1_000)


Pattern: TypeAlias = Sequential | Parallel | Conditional | Loop | FanOutFanIn
WorkingStep: TypeAlias = ApiCall | DatabaseQuery | DataProcessing | AgentCall | Wait | Approval
Step: TypeAlias = Annotated[
    Sequential
    | Parallel
    | Conditional
    | Loop
    | FanOutFanIn
    | ApiCall
    | DatabaseQuery
    | DataProcessing
    | AgentCall
    | Wait
    | Approval,
    Field(discriminator="type"),
]
Steps: TypeAlias = Annotated[list[Step], Field(min_length=1, max_length=1_000)]

for _pattern in (Sequential, Parallel, Conditional, Loop, FanOutFanIn):
    _pattern.model_rebuild()
