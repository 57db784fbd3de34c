"""Calls of single steps, without a workflow."""

from typing import Any

from workflows.ports import StepCall


def step_call(**context: Any) -> StepCall:
    """Return a call whose expressions see this context."""
    return StepCall(context=context, idempotency_key="run:step", step_id="step", started_at=0.0)
