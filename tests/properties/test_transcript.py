"""Whatever happened on a thread, what a model is shown of it is a conversation that providers accept."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import cast

from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import (
    AIMessage,
    AnyMessage,
    HumanMessage,
    SystemMessage,
    ToolCall,
    ToolMessage,
)

from nodes.react.state import Action, ReactState, Reflection, TraceEntry
from nodes.react.transcript import FULL_ITERATIONS, HISTORY_MESSAGES, build_transcript
from tests.support.profiles import examples
from tools.execution import Failure, Observation

SYSTEM = "You help."
LONGEST_LINE = 400


@dataclass(frozen=True)
class Step:
    """An iteration: its thought, whether each call worked, its reflection if it has one."""

    thought: str
    worked: tuple[bool, ...]
    reflection: Reflection | None


@dataclass(frozen=True)
class Turn:
    """A turn: its task, its iterations, the answer; cut off after some replies of the last one."""

    task: str
    steps: tuple[Step, ...]
    answer: str | None
    replies_of_last: int | None


WORDS = st.text(max_size=60) | st.text(alphabet="ab \n", min_size=200, max_size=300)
REFLECTIONS = st.builds(
    Reflection,
    success=st.booleans(),
    reasoning=WORDS,
    task_complete=st.just(value=False),
    suggested_next_action=st.none() | WORDS,
    final_answer=st.none(),
)
STEPS = st.builds(
    Step,
    thought=WORDS,
    worked=st.lists(st.booleans(), min_size=1, max_size=3).map(tuple),
    reflection=st.none() | REFLECTIONS,
)
EARLIER = st.builds(
    Turn,
    task=WORDS,
    steps=st.lists(STEPS, max_size=3).map(tuple),
    answer=st.none() | WORDS,
    replies_of_last=st.none() | st.integers(0, 2),
)
NOW = st.builds(
    Turn,
    task=WORDS,
    steps=st.lists(STEPS, max_size=7).map(tuple),
    answer=st.none(),
    replies_of_last=st.none(),
)


def messages_of(turn: Turn, ids: Iterator[int]) -> Iterator[AnyMessage]:
    yield HumanMessage(turn.task, id=str(next(ids)))
    for step in turn.steps:
        last = step is turn.steps[-1]
        # Some providers number the calls of each reply anew.
        calls = [
            ToolCall(name="look", args={"at": at}, id=f"call-{at}", type="tool_call")
            for at in range(len(step.worked))
        ]
        yield AIMessage(step.thought, tool_calls=calls, id=str(next(ids)))
        shown = calls[: turn.replies_of_last] if last and turn.replies_of_last is not None else calls
        for call in shown:
            yield ToolMessage("{}", tool_call_id=call["id"] or "", id=str(next(ids)))
    if turn.answer is not None and turn.replies_of_last is None:
        yield AIMessage(turn.answer, id=str(next(ids)))


def trace_of(turn: Turn) -> Iterator[TraceEntry]:
    for iteration, step in enumerate(turn.steps, start=1):
        for at, worked in enumerate(step.worked):
            failure = Failure(kind="refused", message="No. " * 100)
            yield TraceEntry(
                iteration=iteration,
                thought=step.thought,
                action=Action(tool="look", args={"at": at}),
                observation=Observation(success=True, result={"found": "x" * 300})
                if worked
                else Observation(success=False, error=failure),
                reflection=step.reflection.model_dump() if step.reflection else None,
            )


def state_of(earlier: Sequence[Turn], now: Turn, *, unreadable: str | None = None) -> ReactState:
    ids = count()
    before = [message for turn in earlier for message in messages_of(turn, ids)]
    run = list(messages_of(now, ids))
    state = {
        "messages": [*before, *run],
        "task": now.task,
        "turn": run[0].id,
        "iterations": len(now.steps),
        "trace": list(trace_of(now)),
        "instruction": "",
        "background": "",
        "context": [],
        "expected_outcome": "",
        "unreadable": unreadable,
    }
    return cast("ReactState", state)


HISTORIES = st.lists(EARLIER, max_size=14)


@given(HISTORIES, NOW, st.none() | st.just("it was empty"))
@settings(max_examples=examples(100), deadline=None)
def test_each_tool_call_is_followed_by_its_result(
    earlier: list[Turn], now: Turn, unreadable: str | None
) -> None:
    messages = build_transcript(state_of(earlier, now, unreadable=unreadable), SYSTEM)
    due: list[str | None] = []
    for message in messages:
        if isinstance(message, ToolMessage):
            assert due, "a reply to no call"
            assert message.tool_call_id == due.pop(0)
        else:
            assert not due, "a call without its reply"
        if isinstance(message, AIMessage):
            due = [call["id"] for call in message.tool_calls]
    assert not due


@given(HISTORIES, NOW)
@settings(max_examples=examples(40), deadline=None)
def test_the_system_prompt_comes_first_and_then_a_human_message(earlier: list[Turn], now: Turn) -> None:
    messages = build_transcript(state_of(earlier, now), SYSTEM)
    assert isinstance(messages[0], SystemMessage)
    assert isinstance(messages[1], HumanMessage)
    assert not any(isinstance(message, SystemMessage) for message in messages[1:])


@given(HISTORIES, NOW)
@settings(max_examples=examples(40), deadline=None)
def test_earlier_turns_are_the_newest_questions_and_answers_within_the_limit(
    earlier: list[Turn], now: Turn
) -> None:
    alone = build_transcript(state_of([], now), SYSTEM)
    messages = build_transcript(state_of(earlier, now), SYSTEM)
    history = messages[1 : len(messages) - len(alone) + 1]
    said = [
        text
        for turn in earlier
        for text in (turn.task, turn.answer if turn.replies_of_last is None else None)
        if text is not None
    ]
    shown = [message.text for message in history]
    assert shown == said[len(said) - len(shown) :]
    assert min(len(said), HISTORY_MESSAGES) - len(shown) in {0, 1}


@given(HISTORIES, NOW)
@settings(max_examples=examples(40), deadline=None)
def test_the_last_iterations_are_shown_in_full_and_older_calls_in_a_line_each(
    earlier: list[Turn], now: Turn
) -> None:
    messages = build_transcript(state_of(earlier, now), SYSTEM)
    thoughts = [message.text for message in messages if isinstance(message, AIMessage) and message.tool_calls]
    assert thoughts == [step.thought for step in now.steps[-FULL_ITERATIONS:]]
    summaries = [message.text for message in messages if message.text.startswith("[Earlier steps]\n")]
    old = now.steps[:-FULL_ITERATIONS]
    lines = [line for summary in summaries for line in summary.split("\n")[1:]]
    numbers = [int(line.partition(".")[0]) for line in lines]
    assert numbers == [number for number, step in enumerate(old, start=1) for _ in step.worked]
    assert all(len(line) < LONGEST_LINE for line in lines)
    reflected = [message.text for message in messages if message.text.startswith("[Reflection after step")]
    assert len(reflected) == sum(step.reflection is not None for step in now.steps[-FULL_ITERATIONS:])


@given(HISTORIES, NOW)
@settings(max_examples=examples(30), deadline=None)
def test_the_beginning_stays_the_same_from_call_to_call(earlier: list[Turn], now: Turn) -> None:
    """A provider's prompt cache is keyed by it."""
    started = Turn(task=now.task, steps=(), answer=None, replies_of_last=None)
    first = build_transcript(state_of(earlier, started), SYSTEM)
    later = build_transcript(state_of(earlier, now), SYSTEM)
    assert [message.text for message in later[: len(first)]] == [message.text for message in first]
