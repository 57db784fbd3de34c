"""A model call as the run's meter counts it."""

import time
from collections.abc import Awaitable
from typing import TypeVar

from langchain_core.messages import AIMessage
from langchain_core.messages.ai import UsageMetadata

from core.errors import ServiceError
from core.metrics import ModelOutcome, current_meter
from core.models.faults import TransientError
from core.models.spec import StructuredReply

R = TypeVar("R")


async def counted(model: str, asking: Awaitable[R]) -> R:
    """Await one attempt at a model call, and count it however it ends."""
    started = time.perf_counter()
    outcome: ModelOutcome = "broken_off"
    tokens: UsageMetadata | None = None
    try:
        reply = await asking
        outcome, tokens = "answered", _usage(reply)
    except TransientError:
        outcome = "unavailable"
        raise
    except ServiceError:
        outcome = "refused"
        raise
    else:
        return reply
    finally:
        seconds = time.perf_counter() - started
        current_meter().model_call(
            model,
            outcome,
            seconds,
            input_tokens=tokens["input_tokens"] if tokens else 0,
            output_tokens=tokens["output_tokens"] if tokens else 0,
        )


def _usage(reply: object) -> UsageMetadata | None:
    message = reply.raw if isinstance(reply, StructuredReply) else reply
    return message.usage_metadata if isinstance(message, AIMessage) else None
