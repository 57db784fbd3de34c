"""The conversation as the policy sees it: the task, the steps since then, the notes, and earlier messages."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from core.offline.observations import Observation, read_observation, summarised_observation
from core.offline.words import clean, keywords
from core.texts import Language, detect_language

MAX_MESSAGES: Final = 200
_FEWEST_KEYWORDS: Final = 2
_SUMMARY: Final = re.compile(r"(?m)^\s*(\d+)\.\s*([A-Za-z]\w*)\(.*?\)( failed)?:\s+(.+)$")
_HINT: Final = re.compile(
    r"(?:suggested next action|next action|pr[oó]xima a[cç][aã]o[^:]*):\s*(.+)", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call that was already made."""

    tool: str
    arguments: dict[str, Any]
    call_id: str

    @property
    def key(self) -> str:
        """The same for two calls of one tool with the same arguments."""
        return f"{self.tool} {json.dumps(self.arguments, sort_keys=True, default=str)}"


@dataclass(frozen=True, slots=True)
class Step:
    """An AI message with tool calls, and their observations."""

    calls: tuple[Call, ...]
    observations: tuple[Observation, ...]


@dataclass(frozen=True)
class Conversation:
    """A conversation: its task, steps and notes.

    Attributes:
        task: The last real request of a person.
        steps: Tool rounds since the task.
        notes: Bracketed notes and instructions since the task, without the task itself.
        earlier: What people and the model said before the task, oldest first.
        system: All system messages.
        answer: The model's last text without tool calls since the task, or empty.
        ends_with_answer: Whether nothing but notes follows that text.
        size: Number of messages.
        words: Rough number of words in all messages.
    """

    task: str
    steps: tuple[Step, ...]
    notes: tuple[str, ...]
    earlier: tuple[str, ...]
    system: str
    answer: str
    ends_with_answer: bool
    size: int
    words: int

    @cached_property
    def topic(self) -> str:
        """The task, preceded by earlier messages if the task alone says too little."""
        if len(keywords(self.task)) >= _FEWEST_KEYWORDS or not self.earlier:
            return self.task
        return (
            f"{self.task} {self.earlier[-1]}"
            if len(self.earlier) == 1
            else " ".join((self.task, *self.earlier[-2:]))
        )

    @cached_property
    def language(self) -> Language:
        """The task's language."""
        return detect_language(self.topic)

    @cached_property
    def observations(self) -> tuple[Observation, ...]:
        """All observations since the task."""
        return tuple(observation for step in self.steps for observation in step.observations)

    @cached_property
    def hint(self) -> str:
        """What the latest reflection suggests to do next, or empty."""
        for note in reversed(self.notes):
            if found := _HINT.search(note):
                return found.group(1)
        return ""

    @cached_property
    def everything(self) -> str:
        """All text in which values for arguments may be found, the task first."""
        observed = (observation.text for observation in self.observations)
        return "\n".join((self.task, *observed, *reversed(self.earlier), *self.notes, self.system))


def read_conversation(messages: Sequence[BaseMessage], *, asks_in_last: bool = True) -> Conversation:
    """Read messages as a conversation.

    Args:
        messages: As the model got them.
        asks_in_last: Whether a person's message right behind a tool's may be a task. It is not where
            structured output is asked for: there it is the graph's instruction.
    """
    recent = list(messages)[-MAX_MESSAGES:]
    texts = [clean(message.text) for message in recent]
    at = _task_index(recent, texts, asks_in_last=asks_in_last)
    after = recent[at + 1 :]
    answer_at = _last_answer(after)
    return Conversation(
        task=texts[at] if at >= 0 else "",
        steps=(*_read_summarised_steps(texts[at + 1 :]), *_read_steps(after)),
        notes=tuple(
            text
            for message, text in zip(after, texts[at + 1 :], strict=True)
            if isinstance(message, HumanMessage)
        ),
        earlier=tuple(
            text
            for message, text in zip(recent[: max(at, 0)], texts, strict=False)
            if text.strip() and isinstance(message, HumanMessage | AIMessage)
        ),
        system="\n".join(
            text for message, text in zip(recent, texts, strict=True) if isinstance(message, SystemMessage)
        ),
        answer=clean(after[answer_at].text) if answer_at >= 0 else "",
        ends_with_answer=answer_at >= 0
        and all(isinstance(message, HumanMessage | SystemMessage) for message in after[answer_at + 1 :]),
        size=len(messages),
        words=sum(len(text.split()) for text in texts),
    )


def _task_index(messages: list[BaseMessage], texts: list[str], *, asks_in_last: bool) -> int:
    asked = [
        index
        for index, (message, text) in enumerate(zip(messages, texts, strict=True))
        if isinstance(message, HumanMessage) and text.strip() and not text.lstrip().startswith("[")
    ]
    instructed = len(messages) > 1 and isinstance(messages[-2], ToolMessage)
    if not asks_in_last and instructed and len(asked) > 1 and asked[-1] == len(messages) - 1:
        asked.pop()
    return asked[-1] if asked else -1


def _last_answer(messages: list[BaseMessage]) -> int:
    for index in range(len(messages) - 1, -1, -1):
        message = messages[index]
        if isinstance(message, AIMessage) and not message.tool_calls and message.text.strip():
            return index
    return -1


def _read_summarised_steps(texts: list[str]) -> tuple[Step, ...]:
    """Return steps that a note summarises in a line each: ``1. tool(arguments): what it said``."""
    rounds: dict[str, tuple[list[Call], list[Observation]]] = {}
    for text in texts:
        for found in _SUMMARY.finditer(text) if text.lstrip().startswith("[") else ():
            number, tool, failed, said = found.groups()
            calls, observed = rounds.setdefault(number, ([], []))
            calls.append(Call(tool, {}, ""))
            observed.append(summarised_observation(tool, said, failed=bool(failed)))
    return tuple(Step(tuple(calls), tuple(observed)) for calls, observed in rounds.values())


def _read_steps(messages: list[BaseMessage]) -> tuple[Step, ...]:
    rounds: list[tuple[tuple[Call, ...], list[Observation]]] = []
    for message in messages:
        if isinstance(message, AIMessage) and message.tool_calls:
            calls = tuple(Call(call["name"], call["args"], call["id"] or "") for call in message.tool_calls)
            rounds.append((calls, []))
        elif isinstance(message, ToolMessage):
            if not rounds:
                rounds.append(((), []))
            calls, observed = rounds[-1]
            observed.append(read_observation(message, _tool_name(message, calls)))
    return tuple(Step(calls, tuple(observed)) for calls, observed in rounds)


def _tool_name(message: ToolMessage, calls: tuple[Call, ...]) -> str:
    if message.name:
        return message.name
    return next((call.tool for call in calls if call.call_id == message.tool_call_id), "tool")
