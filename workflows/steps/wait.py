"""``wait``: for some time, or for a signal."""

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from workflows.definition.base import StepBase

SignalName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_.-]{0,63}$")]
LONGEST_WAIT_SECONDS = 90 * 86_400


class Wait(StepBase):
    """Wait for a duration or a signal; output: ``{waited_seconds}`` or what came with the signal.

    Nothing is held meanwhile, and a restart changes nothing.
    """

    type: Literal["wait"]
    duration_seconds: float = Field(0, ge=0, le=LONGEST_WAIT_SECONDS)
    signal: SignalName | None = Field(None, description="What POST /v1/workflows/{id}/signals/{name} names")
    within_seconds: float = Field(
        0, ge=0, le=LONGEST_WAIT_SECONDS, description="The signal is waited for no longer; 0: for ever"
    )

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        if bool(self.duration_seconds) == bool(self.signal):
            raise ValueError("needs either duration_seconds or signal")
        if self.within_seconds and not self.signal:
            raise ValueError("within_seconds goes with signal")
        return self
