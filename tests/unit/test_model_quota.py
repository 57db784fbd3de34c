"""A provider's quota: calls wait their turn, and wait once."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.messages.ai import UsageMetadata

from core.models import ChatModels
from core.models.usage import Quota, TokenBucket, estimate_tokens
from tests.support.profiles import examples
from tests.support.scripted import INFO, ScriptedChatModel


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@settings(max_examples=examples(50), deadline=None)
@given(st.lists(st.tuples(st.floats(0, 20), st.floats(0.1, 30)), min_size=1, max_size=40))
def test_no_period_has_more_calls_than_the_rate_and_a_burst(calls: list[tuple[float, float]]) -> None:
    clock = Clock()
    bucket = TokenBucket(60, clock)
    used: list[tuple[float, float]] = []
    for pause, amount in calls:
        clock.now += pause
        used.append((clock.now + bucket.take(amount), amount))
    assert used == sorted(used, key=lambda one: one[0])
    for start in range(len(used)):
        for end in range(start, len(used)):
            # The last call of a stretch is let in as soon as all before it is paid for.
            total = sum(amount for _, amount in used[start:end])
            assert total <= (used[end][0] - used[start][0]) + 5 + 1e-6


async def test_calls_beyond_the_quota_wait_and_none_is_rejected() -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    clock = Clock()
    model = ScriptedChatModel(replies=["a", "b", "c", "d"])
    models = ChatModels(INFO, lambda _: model, quota=lambda: Quota(12, clock=clock, sleep=sleep))
    for _ in range(4):
        await models.reply([HumanMessage("Hello")], temperature=0)
    # Twelve a minute are one each 5 s; one more may come at once after a quiet time.
    assert slept == [5, 10]


async def test_the_quota_is_corrected_by_what_the_provider_counts() -> None:
    clock = Clock()
    quota = Quota(tokens_per_minute=60, clock=clock)
    await quota.wait_for_turn(10)
    quota.settle(100, expected=10)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await quota.wait_for_turn(1)
    # The one that left gave its turn back.
    clock.now = 95
    async with asyncio.timeout(60):
        await quota.wait_for_turn(1)


async def test_a_call_is_settled_with_what_its_reply_says_or_else_as_expected() -> None:
    usage = UsageMetadata(input_tokens=3, output_tokens=2, total_tokens=5)
    settled: list[tuple[float | None, float]] = []

    class Watched(Quota):
        def settle(self, tokens: float | None, *, expected: float) -> None:
            settled.append((tokens, expected))

    model = ScriptedChatModel(replies=[AIMessage("a", usage_metadata=usage), "b"])
    models = ChatModels(INFO, lambda _: model, quota=Watched)
    for _ in range(2):
        await models.reply([HumanMessage("12345678")], temperature=0)
    assert settled == [(5, 2), (None, 2)]


def test_a_prompt_is_estimated_by_its_length() -> None:
    assert estimate_tokens([HumanMessage("x" * 40), AIMessage("")]) == 10
