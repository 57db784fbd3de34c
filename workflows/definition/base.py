"""What every step has."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

StepId = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]


class Retry(BaseModel):
    """Try a failed step again."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    retry: int = Field(ge=1, le=10, description="Further attempts")
    backoff_seconds: float = Field(1, ge=0, le=3_600, description="Before the first; then it doubles")


class StepBase(BaseModel):
    """What every step has."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: StepId
    name: str = Field("", max_length=200)
    on_error: Literal["fail", "skip"] | Retry = "fail"
    timeout_seconds: float = Field(30, gt=0, le=3_600, description="Of one attempt")
