"""The schemas of what the models write: a plan, a revision of it, a judgement.

Steps and sub-goals are numbered. Limits that :mod:`nodes.planning_monitor.plan_rules` checks stand in the
JSON schema only, so that the model is told all faults of a plan at once.
"""

from collections.abc import Collection
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import AfterValidator, BaseModel, Field, create_model

from core.texts import make_storable

# A plan that a person can still read. A longer task is several tasks.
MAX_SUB_GOALS = 6
MAX_STEPS = 10

# What models write for "nothing", whatever the schema asks for.
_EMPTY_WORDS = frozenset(
    {"none", "n/a", "null", "nothing", "no change", "no changes", "nenhum", "nenhuma", "-"}
)


def _clear_empty_words(text: str) -> str:
    storable = make_storable(text).strip()
    return "" if storable.casefold().rstrip(".") in _EMPTY_WORDS else storable


_Text: TypeAlias = Annotated[str, Field(min_length=1, max_length=2_000), AfterValidator(make_storable)]
_Line: TypeAlias = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(make_storable)]
_OptionalLine: TypeAlias = Annotated[str, Field(max_length=500), AfterValidator(_clear_empty_words)]
_Names: TypeAlias = Annotated[
    list[str], Field(max_length=50), AfterValidator(lambda names: list(dict.fromkeys(names)))
]
_Number: TypeAlias = Annotated[int, Field(ge=1, le=999)]


class GoalAnalysis(BaseModel):
    """The goal, and how to tell that it is reached."""

    primary_goal: _Text = Field(description="The goal of the request, in one or two sentences")
    success_criteria: list[_Line] = Field(
        min_length=1, max_length=8, description="What must be true when the goal is reached, to check it by"
    )
    constraints: list[_Line] = Field(
        default_factory=list, max_length=20, description="What must be kept to on the way"
    )


class SubGoal(BaseModel):
    """A part of the goal."""

    number: _Number = Field(description="Number of the sub-goal: 1 for the first, 2 for the second")
    description: _Line = Field(description="What the sub-goal is")
    depends_on: list[int] = Field(
        default_factory=list,
        max_length=20,
        description="Numbers of the sub-goals to be reached before",
    )
    effort: Literal["low", "medium", "high"] = Field(description="How much work it is: low, medium or high")


class PlanStep(BaseModel):
    """One piece of work for one agent."""

    step_id: _Number = Field(description="Number of the step: 1 for the first, 2 for the second")
    sub_goal_number: _Number = Field(description="Number of the sub-goal that the step serves")
    task: _Text = Field(description="What to do in this step, with all that must be known to do it")
    expected_outcome: _Line = Field(description="What is known or done when the step has succeeded")
    tool: str = Field("", max_length=100, description="Name of the tool that the step needs most")
    other_tools: _Names = Field(
        default_factory=list, description="Names of the other tools that the step may use"
    )
    depends_on: list[int] = Field(
        default_factory=list,
        max_length=50,
        description="Numbers of the steps whose outcome this step needs; none when it can begin at once",
    )
    decision_point: _OptionalLine = Field(
        "", description="What is to be decided by the outcome of the step; empty when nothing is"
    )

    @property
    def tools(self) -> list[str]:
        """All the tools of the step, each once."""
        return [name for name in dict.fromkeys([self.tool, *self.other_tools]) if name]


class Risk(BaseModel):
    """What may go wrong."""

    description: _Line = Field(description="What may go wrong")
    mitigation: _Line = Field(description="What makes it less likely")
    fallback: _Line = Field(description="What to do when it happens all the same")


class Monitoring(BaseModel):
    """What the monitor looks at."""

    indicators: list[_Line] = Field(
        default_factory=list, max_length=8, description="What shows that the work goes well"
    )
    quality_checkpoints: list[_Line] = Field(
        default_factory=list, max_length=8, description="What to check in the results before going on"
    )
    abort_conditions: list[_Line] = Field(
        default_factory=list, max_length=8, description="When to stop for good"
    )


class Plan(BaseModel):
    """The whole plan."""

    goal_analysis: GoalAnalysis = Field(description="What is to be reached, and how to tell")
    sub_goals: list[SubGoal] = Field(
        description="The parts of the goal", json_schema_extra={"minItems": 1, "maxItems": MAX_SUB_GOALS}
    )
    steps: list[PlanStep] = Field(
        description="The steps, in order", json_schema_extra={"minItems": 1, "maxItems": MAX_STEPS}
    )
    risks: list[Risk] = Field(
        default_factory=list, max_length=8, description="What may go wrong, and what to do about it"
    )
    monitoring: Monitoring = Field(description="What to look at while the plan is carried out")


class Revision(BaseModel):
    """What remains to be done, planned anew."""

    reasoning: _Text = Field(description="Why these steps, in one or two sentences")
    steps: list[PlanStep] = Field(
        description="All the steps that remain; none when nothing remains to be done",
        json_schema_extra={"maxItems": MAX_STEPS},
    )


class Judgement(BaseModel):
    """What the monitor makes of a wave's results."""

    success: bool = Field(description="Whether the steps that ran last did what they were meant to do")
    reasoning: _Text = Field(description="What the results say about the goal, in one or two sentences")
    adjustment: Annotated[str, Field(max_length=2_000), AfterValidator(_clear_empty_words)] = Field(
        "", description="What to change in the steps that remain; empty when the plan stands as it is"
    )
    abort: bool = Field(
        default=False,
        description="Whether to stop for good: an abort condition holds, or the goal is out of reach",
    )


PlanT = TypeVar("PlanT", Plan, Revision)


def restrict_tools(schema: type[PlanT], tools: Collection[str]) -> type[PlanT]:
    """Return the schema as the model sees it: steps choose their other tools among those available."""
    if not tools:
        return schema
    steps_field = schema.model_fields["steps"]
    tools_field = PlanStep.model_fields["other_tools"]
    choice: dict[str, Any] = {"items": {"type": "string", "enum": list(tools)}}
    step = create_model(
        "PlanStep",
        __base__=PlanStep,
        __doc__=PlanStep.__doc__,
        other_tools=(
            _Names,
            Field(default_factory=list, description=tools_field.description, json_schema_extra=choice),
        ),
    )
    steps = Field(description=steps_field.description, json_schema_extra=steps_field.json_schema_extra)
    # mypy cannot know a type that is created here.
    fields: dict[str, Any] = {"steps": (list[step], steps)}
    return create_model(schema.__name__, __base__=schema, __doc__=schema.__doc__, **fields)
