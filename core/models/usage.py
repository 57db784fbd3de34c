"""Use of models: quotas per minute, for which calls wait here instead of being rejected, and metering."""

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

# A provider's tokenizer is a network call away. This is close for texts in Latin letters, and the count in
# the reply corrects it.
_CHARACTERS_PER_TOKEN = 4
# After a quiet time, a quota of so many seconds may be used at once.
_BURST_SECONDS = 5.0


class TokenBucket:
    """A token bucket in the form of a clock (the generic cell rate algorithm of ITU-T I.371).

    A caller is told how long to wait and sleeps once, so nobody polls, and callers are served in order of
    arrival.

    Args:
        per_minute: Tokens that are added per minute.
        clock: Monotonic time in seconds.
    """

    def __init__(self, per_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds_each = 60 / per_minute
        self._clock = clock
        # When everything that was taken will have been added again.
        self._paid_at = float("-inf")

    def take(self, amount: float) -> float:
        """Take an amount.

        Returns:
            Seconds until the amount may be used.
        """
        now = self._clock()
        wait = max(0.0, self._paid_at - now)
        self._paid_at = max(self._paid_at, now - _BURST_SECONDS) + amount * self._seconds_each
        return wait

    def give_back(self, amount: float) -> None:
        """Give back an amount that was taken and not used; a negative one takes what was used beyond it."""
        self._paid_at -= amount * self._seconds_each


class Quota:
    """The quota of one model.

    Args:
        requests_per_minute: Most calls. ``None``: unlimited.
        tokens_per_minute: Most input and output tokens. ``None``: unlimited.
        clock: Monotonic time in seconds.
        sleep: Waits for so many seconds.
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
        """Wait until a call of about so many tokens may be made; a cancelled caller gives its turn back."""
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
        """Correct the expected use of a call by its real one, if that is known."""
        if self._tokens and tokens is not None:
            self._tokens.give_back(expected - tokens)


def estimate_tokens(messages: Sequence[BaseMessage]) -> float:
    """Return about how many tokens a prompt has."""
    return sum(len(message.text) for message in messages) / _CHARACTERS_PER_TOKEN


R = TypeVar("R")


async def meter_call(model: str, attempt: Awaitable[R]) -> R:
    """Await one attempt at a model call and record it in the run's meter, however it ends."""
    started = time.perf_counter()
    outcome: ModelOutcome = "broken_off"
    tokens: UsageMetadata | None = None
    try:
        reply = await attempt
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
