"""What every step has."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from workflows.definition.conditions import ALWAYS, Condition

StepId = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]


class Retry(BaseModel):
    """Try a failed step again."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    retry: int = Field(ge=1, le=10, description="Further attempts")
    backoff_seconds: float = Field(1, ge=0, le=3_600, description="Before the first; then it doubles")
    then: Literal["fail", "skip"] = Field("fail", description="When all of them failed")


class AnyStep(BaseModel):
    """What patterns and working steps have."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: StepId = Field(description="Its own in the whole definition; others refer to it by this")
    name: str = Field("", max_length=200, description="For people")
    when: Condition = Field(ALWAYS, description="Otherwise it is skipped")


class StepBase(AnyStep):
    """What every working step has."""

    on_error: Literal["fail", "skip"] | Retry = "fail"
    timeout_seconds: float = Field(30, gt=0, le=3_600, description="Of one attempt")

    @property
    def bound_seconds(self) -> float:
        """How long one run of the step's executor may take."""
        return self.timeout_seconds


class PatternBase(AnyStep):
    """What every pattern has."""

    on_error: Literal["fail", "skip"] = Field(
        "fail", description="skip: a failure inside ends the pattern and not the workflow"
    )
