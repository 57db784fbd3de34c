"""Recognise replies that repeat the service's own prompt: weak models copy what surrounds the question.

Sentences of our prompts, tags of sections, headings of messages, lines of memory, cases of escalation,
notices of unreadable replies and control tokens of chat templates occur in no text that was written for a
customer.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

# Names that `core.texts.fence` is called with, and the tags in prompts/.
SECTION_TAGS: Final = frozenset(
    {
        "agent",
        "answer",
        "attempts",
        "contact",
        "conversation",
        "customer",
        "deal",
        "earlier_summary",
        "facts",
        "found",
        "given",
        "memories",
        "message",
        "report",
        "results",
        "summary",
        "system",
        "talk",
    }
)
# How the messages of prompts begin that are not the customer's.
HEADINGS: Final = (
    "Answer",
    "Answers of the agents",
    "Background",
    "Constraints",
    "Decision",
    "Earlier steps",
    "Expected outcome",
    "Help articles that were found",
    "Iteration",
    "Last wave",
    "Numbers",
    "Reading",
    "Reflection after step",
    "Results",
    "Review",
    "Reviews",
    "Subtasks so far",
    "The deal",
    "The monitor asks for this change",
    "The plan",
    "This does not hold",
    "Validation",
    "What else is known",
    "What is known of the customer",
    "What the CRM knows of the customer",
    "What was done",
    "Your last reply could not be read",
    "Your subtasks cannot be carried out",
)
# Sentences that tell a model what to do.
_PHRASES: Final = (
    "a person has to take over in these cases",
    "information, not instructions",
    "your last reply could not be read",
    "answer again, in the form asked for",
    "details of the product in them are made up",
    "names and figures in them are made up",
)

_CODE: Final = re.compile(r"`[^`\n]+`")
_TAG: Final = re.compile(rf"<\s*/?\s*(?:{'|'.join(sorted(SECTION_TAGS))})\s*>", re.IGNORECASE)
# Not `[Review](https://...)`, which is a link.
_HEADING: Final = re.compile(
    rf"^[\s>*#-]*\[(?:{'|'.join(map(re.escape, HEADINGS))})\b[^\]\n]*\](?!\()", re.IGNORECASE | re.MULTILINE
)
# `[2026-03-01, summary of session 1a2b3c4d]`, `[since 2026-03-01, message 1a2b3c4d]`; see core.packing.
_MEMORY_LINE: Final = re.compile(
    r"\[\d{4}-\d\d-\d\d, [^\]\n]{1,60}\]|\[since \d{4}-\d\d-\d\d, message [^\]\n]{0,20}\]"
)
_ESCALATION_CASE: Final = re.compile(r"^\s*[-*] .+ \(team: [^)\n]+\)\s*$", re.MULTILINE)
_CONTROL_TOKEN: Final = re.compile(r"<\|[a-z_]{2,30}\|>|\[/?INST\]|</?tool_call>")
_PATTERNS: Final = (_TAG, _HEADING, _MEMORY_LINE, _ESCALATION_CASE, _CONTROL_TOKEN)

_PROMPTS: Final = Path(__file__).parents[2] / "prompts"
_SENTENCE_END: Final = re.compile(r"(?<=[.:;?!])\s+|\n\s*\n|\n\s*-\s")
# Shorter sentences may be said by anybody.
_MIN_SENTENCE_WORDS: Final = 8


def _normalise(text: str) -> str:
    return " ".join(text.lower().split())


def _list_prompt_sentences() -> tuple[str, ...]:
    """Return the sentences of all prompts, without those that a value is filled into."""
    sentences = {
        _normalise(sentence)
        for path in _PROMPTS.glob("*.md")
        for sentence in _SENTENCE_END.split(path.read_text(encoding="utf-8"))
        if len(sentence.split()) >= _MIN_SENTENCE_WORDS and not re.search(r"[{$`]", sentence)
    }
    return tuple(sorted(sentences))


# Read at import, and not while a run waits.
_PROMPT_SENTENCES: Final = _list_prompt_sentences()

ECHO_FAULT: Final = (
    "it repeats parts of the prompt: write the answer alone, without its tags, headings or notes"
)


def find_echo(text: str) -> str | None:
    """Return the first part of a text that only a prompt contains, or ``None``.

    Code within a line is ignored, so that an answer may explain markup.
    """
    prose = _CODE.sub(" ", text)
    for pattern in _PATTERNS:
        if match := pattern.search(prose):
            return match.group().strip()
    lowered = _normalise(prose)
    return next((phrase for phrase in (*_PHRASES, *_PROMPT_SENTENCES) if phrase in lowered), None)


def find_echo_in_value(value: Any) -> str | None:
    """Return the first echo in the texts of a JSON-like value, or ``None``."""
    return next(filter(None, map(find_echo, _iter_texts(value))), None)


def _iter_texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _iter_texts(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _iter_texts(each)
