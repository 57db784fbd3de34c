"""What a provider lets through in a minute: calls wait their turn instead of being refused there."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.ai import UsageMetadata

from core.errors import ServiceError
from core.metrics import ModelOutcome, current_meter
from core.models.faults import TransientError
from core.models.replies import StructuredReply

# A provider's tokenizer is a network call away; for texts of Latin letters this is near, and what a reply
# says of its real use corrects it.
_CHARACTERS_PER_TOKEN = 4
# Seconds' worth of a quota that may be used at once after a quiet time.
_BURST_SECONDS = 5.0


class TokenBucket:
    """A token bucket as a clock (the generic cell rate algorithm, ITU-T I.371, as a scheduler).

    A caller is told how long to wait and sleeps once, so nobody polls, and who comes first goes first.

    Args:
        per_minute: What flows in each minute.
        clock: Seconds, monotonic.
    """

    def __init__(self, per_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds_each = 60 / per_minute
        self._clock = clock
        # When all that was taken so far has flowed in again.
        self._paid_at = float("-inf")

    def take(self, amount: float) -> float:
        """Take so much.

        Returns:
            Seconds until it may be used.
        """
        now = self._clock()
        wait = max(0.0, self._paid_at - now)
        self._paid_at = max(self._paid_at, now - _BURST_SECONDS) + amount * self._seconds_each
        return wait

    def give_back(self, amount: float) -> None:
        """Return what was taken and not used; a negative amount takes what was used beyond it."""
        self._paid_at -= amount * self._seconds_each


class Quota:
    """The quota of one model.

    Args:
        requests_per_minute: Most calls; None: no bound.
        tokens_per_minute: Most tokens, in and out; None: no bound.
        clock: Seconds, monotonic.
        sleep: Waits so many seconds.
    """

    def __init__(
        self,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._sleep = sleep
        self._requests = TokenBucket(requests_per_minute, clock) if requests_per_minute else None
        self._tokens = TokenBucket(tokens_per_minute, clock) if tokens_per_minute else None

    async def wait_for_turn(self, tokens: float) -> None:
        """Wait until a call of about so many tokens may be made; a caller that leaves gives its turn back."""
        taken = [
            (bucket, amount) for bucket, amount in ((self._requests, 1.0), (self._tokens, tokens)) if bucket
        ]
        wait = max((bucket.take(amount) for bucket, amount in taken), default=0.0)
        if wait <= 0:
            return
        try:
            await self._sleep(wait)
        except asyncio.CancelledError:
            for bucket, amount in taken:
                bucket.give_back(amount)
            raise

    def settle(self, tokens: float | None, *, expected: float) -> None:
        """Put right what a call was thought to use, where it is known what it did."""
        if self._tokens and tokens is not None:
            self._tokens.give_back(expected - tokens)


def estimate_tokens(messages: Sequence[BaseMessage]) -> float:
    """About how many tokens a prompt has."""
    return sum(len(message.text) for message in messages) / _CHARACTERS_PER_TOKEN


R = TypeVar("R")


async def meter_call(model: str, asking: Awaitable[R]) -> R:
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
        current_meter().record_model_call(
            model,
            outcome,
            seconds,
            input_tokens=tokens["input_tokens"] if tokens else 0,
            output_tokens=tokens["output_tokens"] if tokens else 0,
        )


def _usage(reply: object) -> UsageMetadata | None:
    message = reply.raw if isinstance(reply, StructuredReply) else reply
    return message.usage_metadata if isinstance(message, AIMessage) else None
