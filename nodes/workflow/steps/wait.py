"""``wait``: an interrupt that the service answers, when it is time or a signal has come."""

import time
from typing import Annotated, Literal, TypedDict

from langgraph.types import interrupt
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from core.errors import StepFailed
from workflows.ports import StepCall
from workflows.steps.wait import Wait


class Waiting(TypedDict):
    """What a waiting step's interrupt says; ``POST /v1/approvals`` does not list it."""

    kind: Annotated[Literal["timer", "signal"], Field(description="What it waits for")]
    step: Annotated[str, Field(description="The step's id")]
    signal: Annotated[str, Field(description="The signal's name; empty: a timer")]
    due: Annotated[float, Field(description="When it is over, seconds since the epoch; 0: never")]


class Woken(BaseModel):
    """The answer that ends a wait."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["due", "signal"]
    payload: JsonValue = Field(None, description="What came with the signal")


async def wait(step: Wait, call: StepCall) -> JsonValue:
    """The executor.

    Raises:
        StepFailed: The signal did not come within its time.
    """
    seconds = step.duration_seconds or step.within_seconds
    woken: Woken = interrupt(
        Waiting(
            kind="signal" if step.signal else "timer",
            step=call.step_id,
            signal=step.signal or "",
            due=call.since + seconds if seconds else 0.0,
        ),
        response_schema=Woken,
    )
    if step.signal and woken.kind == "due":
        raise StepFailed(f"the signal {step.signal!r} did not come within {step.within_seconds:g} s")
    return woken.payload if step.signal else {"waited_seconds": round(time.time() - call.since, 3)}
