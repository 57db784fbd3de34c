"""A model call of a run that already has a version: its failure becomes the reason the run ends with."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from core.errors import ModelError, ModelMisconfigured, ModelRefused
from nodes.critique_refine.state import Reason

T = TypeVar("T")

# A little more than a model's attempts take together; below the step's own limit, which would end the run
# with an error and without the message.
CALL_TIMEOUT_SECONDS = 200.0


async def attempted(call: Awaitable[T | None]) -> tuple[T | None, Reason | None]:
    """The call's value, or why there is none.

    Args:
        call: Gives ``None`` where the model's replies could not be read.
    """
    try:
        async with asyncio.timeout(CALL_TIMEOUT_SECONDS):
            value = await call
    except ModelError as error:
        return None, _reason(error)
    except TimeoutError:
        return None, "model_unavailable"
    return value, "model_reply_unreadable" if value is None else None


def _reason(error: ModelError) -> Reason:
    if isinstance(error, ModelRefused):
        return "model_refused"
    if isinstance(error, ModelMisconfigured):
        return "model_misconfigured"
    return "model_unavailable"
