"""The conversation as the offline model reads it: the request, what tools returned, and notes."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from core.offline.words import find_codes, find_concepts, find_months
from core.texts import Language, detect_language

_MOST_MESSAGES: Final = 200
# "And the one of March?" is understood with the message before it.
_SHORT_WORDS: Final = 6
_FOLLOW_UP: Final = re.compile(r"^\s*(?:and|what about|how about|e|y|e o|e a|¿?y)\b", re.IGNORECASE)
# Notes of a graph begin with a bracket: background, reflections, review questions.
_NOTE: Final = re.compile(r"^\s*\[")
# A line of the customer in the conversation that a graph puts beside the task.
_CUSTOMER_LINE: Final = re.compile(r"^customer: (.+)$", re.MULTILINE)
# Which step a loop is at: what was done in early ones may have been dropped from the prompt.
_ITERATION: Final = re.compile(r"^\s*\[Iteration (\d+) of", re.MULTILINE)
_TAGS: Final = re.compile(r"</?[a-z_]{2,20}>")


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call that was made, with what it returned.

    Attributes:
        tool: Name of the tool.
        arguments: As they were given.
        result: The JSON value or text that the tool returned; ``None`` for a failure.
        failure: ``unavailable``, ``refused`` or another kind of failure; empty for a success.
    """

    tool: str
    arguments: Mapping[str, Any]
    result: Any = None
    failure: str = ""


@dataclass(frozen=True)
class Conversation:
    """What the offline model knows.

    Attributes:
        task: The last request of a person.
        earlier: Messages of the person before it, the latest last.
        rounds: Tool calls made since, by model message.
        notes: Texts that the graph put beside the task.
        system: The system prompts.
        answer: The model's last text without tool calls since the task.
        size: Characters of all messages.
    """

    task: str
    earlier: Sequence[str] = ()
    rounds: Sequence[Sequence[Call]] = ()
    notes: Sequence[str] = ()
    system: str = ""
    answer: str = ""
    size: int = 0

    @cached_property
    def calls(self) -> list[Call]:
        """Return all calls since the task."""
        return [call for calls in self.rounds for call in calls]

    @cached_property
    def iteration(self) -> int:
        """Return at which step of a loop the model is asked, from 1; 0: in no loop."""
        numbers = [int(number) for note in self.notes for number in _ITERATION.findall(note)]
        return max(numbers, default=0)

    @cached_property
    def topic(self) -> str:
        """Return the task, with the message before it where the task alone says too little."""
        is_short = len(self.task.split()) <= _SHORT_WORDS
        if self.earlier and is_short and (_FOLLOW_UP.match(self.task) or not find_concepts(self.task)):
            return f"{self.earlier[-1]}\n{self.task}"
        return self.task

    @cached_property
    def language(self) -> Language:
        """Return the language of the task, else of the messages before it."""
        language: Language = "en"
        for text in [*self.earlier, self.task]:
            language = detect_language(text, default=language)
        return language

    @cached_property
    def concepts(self) -> list[str]:
        """Return the concepts of the topic."""
        return find_concepts(self.topic)

    @cached_property
    def codes(self) -> list[str]:
        """Return the identifiers in the task; those of the topic if the task names no month either."""
        return find_codes(self.task) or ([] if find_months(self.task) else find_codes(self.topic))

    @cached_property
    def months(self) -> list[int]:
        """Return the months in the task; those of the topic if the task names no identifier either."""
        return find_months(self.task) or ([] if find_codes(self.task) else find_months(self.topic))


def read_conversation(messages: Sequence[BaseMessage]) -> Conversation:
    """Read the last messages of a conversation.

    The task is the last human message that is no note of a graph. Where a conversation consists of notes
    alone, the first of them is the task.
    """
    latest = list(messages[-_MOST_MESSAGES:])
    humans = [at for at, message in enumerate(latest) if isinstance(message, HumanMessage)]
    requests = [at for at in humans if not _NOTE.match(latest[at].text)]
    start = requests[-1] if requests else humans[0] if humans else len(latest)
    # A question that a graph asks about the work, after tool results, is no request of a person.
    while len(requests) > 1 and any(isinstance(each, ToolMessage) for each in latest[requests[-2] : start]):
        if _has_turn_between(latest[requests[-2] : start]):
            break
        requests.pop()
        start = requests[-1]
    since = latest[start + 1 :]
    notes: list[str] = [each.text for each in since if isinstance(each, HumanMessage)]
    notes += _embedded_notes(latest, start)
    told = [line for note in notes for line in _CUSTOMER_LINE.findall(note)]
    return Conversation(
        task=_own_words(latest[start].text) if start < len(latest) else "",
        earlier=[*(_own_words(latest[at].text) for at in requests[:-1]), *told],
        rounds=_rounds(since),
        notes=notes,
        system="\n".join(each.text for each in latest if isinstance(each, SystemMessage)),
        answer=next(
            (m.text for m in reversed(since) if isinstance(m, AIMessage) and not m.tool_calls and m.text), ""
        ),
        size=sum(len(message.text) for message in latest),
    )


def _has_turn_between(messages: Sequence[BaseMessage]) -> bool:
    """Return whether the model answered the first message, so that the next one is a new request."""
    return any(isinstance(each, AIMessage) and not each.tool_calls for each in messages)


def _own_words(text: str) -> str:
    """Return what a person wrote, without the notes below it and without tags around it."""
    return _TAGS.sub(" ", re.split(r"\n\s*\[", text, maxsplit=1)[0]).strip()


def _embedded_notes(messages: Sequence[BaseMessage], start: int) -> list[str]:
    text = messages[start].text if start < len(messages) else ""
    parts = re.split(r"\n\s*(?=\[)", text, maxsplit=1)
    return parts[1:]


def _rounds(messages: Sequence[BaseMessage]) -> list[list[Call]]:
    results = {each.tool_call_id: each for each in messages if isinstance(each, ToolMessage)}
    return [
        [_call(call["name"], call["args"], results.get(call["id"] or "")) for call in message.tool_calls]
        for message in messages
        if isinstance(message, AIMessage) and message.tool_calls
    ]


def _call(tool: str, arguments: Mapping[str, Any], message: ToolMessage | None) -> Call:
    if message is None:
        return Call(tool, arguments, failure="unavailable")
    content = _parse(message.text)
    if isinstance(content, dict) and isinstance(content.get("success"), bool):
        error = content.get("error")
        if content["success"]:
            return Call(tool, arguments, result=content.get("result", content))
        kind = error.get("kind") if isinstance(error, dict) else None
        return Call(tool, arguments, failure=str(kind or "refused"))
    if message.status == "error":
        return Call(
            tool, arguments, failure="unavailable" if "unavailable" in message.text.lower() else "refused"
        )
    return Call(tool, arguments, result=content)


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
