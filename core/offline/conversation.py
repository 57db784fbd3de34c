"""The conversation as the offline model reads it: the request, what tools returned, and notes."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from core.offline.words import PATTERNS, find_codes, find_concepts, find_months
from core.texts import Language, detect_language, normalise_text

_MOST_MESSAGES: Final = 200
# "And the one of March?" is understood with the message before it.
_SHORT_WORDS: Final = 6
_FOLLOW_UP: Final = re.compile(r"^\s*(?:and|what about|how about|e|y|e o|e a|¿?y)\b", re.IGNORECASE)
# Notes of a graph begin with a bracket: background, reflections, review questions.
_NOTE: Final = re.compile(r"\n\s*(?=\[)")
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
        answer: The model's last text without tool calls since the task.
    """

    task: str
    earlier: Sequence[str] = ()
    rounds: Sequence[Sequence[Call]] = ()
    notes: Sequence[str] = ()
    answer: str = ""

    @cached_property
    def calls(self) -> list[Call]:
        """Return all calls since the task."""
        return [call for calls in self.rounds for call in calls]

    @cached_property
    def iteration(self) -> int:
        """Return at which step of a loop the model is asked, from 1; 0: in no loop."""
        return max((int(each) for note in self.notes for each in _ITERATION.findall(note)), default=0)

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
    def concepts(self) -> set[str]:
        """Return the concepts of the topic."""
        return set(find_concepts(self.topic))

    @cached_property
    def codes(self) -> list[str]:
        """Return the identifiers in the task; those of the topic if the task names no month either."""
        return find_codes(self.task) or ([] if find_months(self.task) else find_codes(self.topic))

    @cached_property
    def months(self) -> list[int]:
        """Return the months in the task; those of the topic if the task names no identifier either."""
        return find_months(self.task) or ([] if find_codes(self.task) else find_months(self.topic))

    @cached_property
    def folded_task(self) -> str:
        """Return the task in lower case and without accents, as patterns are matched against it."""
        return normalise_text(self.task)

    def matches(self, pattern: str) -> bool:
        """Return whether a pattern of the vocabulary is in the task."""
        return bool(PATTERNS[pattern].search(self.folded_task))

    @cached_property
    def needs_explanation(self) -> bool:
        """Return whether the message asks how something is done, or reports what does not work."""
        return "error" in self.concepts or self.matches("problem") or self.matches("how_to")


def read_conversation(messages: Sequence[BaseMessage]) -> Conversation:
    """Read the last messages of a conversation.

    The task is the last human message that is no note of a graph, and that no graph asks about the work
    while it is done. Where a conversation consists of notes alone, the first of them is the task.
    """
    latest = list(messages[-_MOST_MESSAGES:])
    humans = [at for at, message in enumerate(latest) if isinstance(message, HumanMessage)]
    if not humans:
        return Conversation(task="")
    requests = [at for at in humans if not latest[at].text.lstrip().startswith("[")]
    while len(requests) > 1 and _is_at_work(latest[requests[-2] : requests[-1]]):
        requests.pop()
    start = requests[-1] if requests else humans[0]
    since = latest[start + 1 :]
    task, *notes = _NOTE.split(latest[start].text, maxsplit=1)
    notes += [each.text for each in since if isinstance(each, HumanMessage)]
    earlier = [_TAGS.sub(" ", _NOTE.split(latest[at].text, maxsplit=1)[0]).strip() for at in requests[:-1]]
    answers = [each.text for each in since if isinstance(each, AIMessage) and not each.tool_calls]
    return Conversation(
        task=_TAGS.sub(" ", task).strip(),
        earlier=[*earlier, *(line for note in notes for line in _CUSTOMER_LINE.findall(note))],
        rounds=_read_rounds(since),
        notes=notes,
        answer=next(filter(None, reversed(answers)), ""),
    )


def _is_at_work(messages: Sequence[BaseMessage]) -> bool:
    """Return whether tools were called after the first message, and it was not answered yet."""
    return any(isinstance(each, ToolMessage) for each in messages) and not any(
        isinstance(each, AIMessage) and not each.tool_calls for each in messages
    )


def _read_rounds(messages: Sequence[BaseMessage]) -> list[list[Call]]:
    results = {each.tool_call_id: each for each in messages if isinstance(each, ToolMessage)}
    return [
        [_read_call(call["name"], call["args"], results.get(call["id"] or "")) for call in message.tool_calls]
        for message in messages
        if isinstance(message, AIMessage) and message.tool_calls
    ]


def _read_call(tool: str, arguments: Mapping[str, Any], message: ToolMessage | None) -> Call:
    text = message.text if message else "unavailable"
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = text
    is_envelope = isinstance(content, dict) and isinstance(content.get("success"), bool)
    if is_envelope and content["success"]:
        return Call(tool, arguments, result=content.get("result", content))
    if is_envelope or message is None or message.status == "error":
        return Call(tool, arguments, failure="unavailable" if "unavailable" in text.lower() else "refused")
    return Call(tool, arguments, result=content)
