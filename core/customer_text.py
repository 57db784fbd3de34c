"""Text that may be sent to a customer: a type whose constructor is the check.

Whatever sends text to a customer takes a :class:`CustomerText`, so that text that was not checked cannot be
sent. The check refuses what only a fault can put into an answer: text for the people who run the service,
parts of prompts, private reasoning, template fields that were not filled in, and internal ids. It does not
judge whether an answer is right.
"""

import re
from dataclasses import dataclass
from typing import Annotated, Final, TypeAlias, final

from pydantic import AfterValidator

from core import errors
from core.models.echoes import ECHO_FAULT, find_echo
from core.placeholders import find_template_fields
from core.settings import GROUPS, env_name
from core.texts import make_storable

_FENCED_CODE: Final = re.compile(r"```.*?```", re.DOTALL)
_INLINE_CODE: Final = re.compile(r"`[^`\n]+`")

_SETTINGS: Final = sorted(env_name(group, field) for group in GROUPS.values() for field in group.model_fields)
_ERRORS: Final = [
    each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.ServiceError)
]


def _any_of(words: list[str]) -> str:
    return "|".join(map(re.escape, words))


# A setting of one word, such as MODEL, is told by what stands beside it.
_SETTING: Final = re.compile(
    rf"\b(?:{_any_of([name for name in _SETTINGS if '_' in name])}|[A-Z][A-Z0-9]*_API_KEY)\b"
    rf"|\b(?:{_any_of([name for name in _SETTINGS if '_' not in name])})\s?="
)
# Tools, reasons why runs are incomplete, and error codes.
_NAME: Final = re.compile(
    r"\b(?:search|get|list|check|find|fetch|lookup|create|update|delete|schedule|send|hand_over|record|query)"
    r"_[a-z_]{2,}\b"
    r"|\b(?:[a-z]+_)+(?:refused|unavailable|unreadable|misconfigured|failed|reached|recorded|rejected|invalid)\b"
    r"|\b(?:needs_model|decided_by_human|already_closed|closed_meanwhile|first_answer|only_answer|not_merged"
    r"|no_(?:progress|branch_answered|valid_votes))\b"
    rf"|\b(?:{_any_of(sorted(each.code for each in _ERRORS if '_' in each.code))})\b"
)
# The name of an exception has several words: "Error" and "Not Found" alone are plain English.
_EXCEPTION: Final = re.compile(
    r"\bTraceback \(most recent call last\)|^\s*File \"[^\"\n]+\", line \d+"
    r"|\b(?:[A-Z][a-z]+)+(?:Error|Exception)\b"
    rf"|\b(?:{_any_of(sorted(each.__name__ for each in _ERRORS))})(?:\(|: )",
    re.MULTILINE,
)
_OPERATOR: Final = re.compile(
    r"\boffline model\b|\b(?:no|a) language model is (?:not )?configured\b|\bneeds a language model\b"
    r"|\bmodelo de linguagem (?:n[aã]o )?est[aá] configurado\b"
    r"|\bmodelo de lenguaje (?:no )?est[aá] configurado\b"
    r"|\bthe model(?:'s|\u2019s) (?:repl(?:y|ies)|provider)\b|\bmodel call (?:failed|timed out)\b",
    re.IGNORECASE,
)
_REASONING: Final = re.compile(
    r"</?\s*(?:think|thinking|thought|reasoning|scratchpad|reflection)\b[^>\n]{0,40}>"
    r"|^[*_#\s]{0,4}(?:Thought|Action Input|Observation)[*_]{0,2}:",
    re.IGNORECASE | re.MULTILINE,
)
# UUIDs, ids of calls, runs and threads, and ids of the CRM's rows that have another number for customers.
_INTERNAL_ID: Final = re.compile(
    r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b|\b(?=[a-f]*\d)[0-9a-f]{32}\b"
    r"|\b(?:call|run|thread|chatcmpl|toolu|msg)[-_](?=[A-Za-z]*\d)[0-9A-Za-z]{6,}"
    r"|\bOPP-\d+\b|\binv-\d+\b|\bkb-[a-z]{3,}(?:-[a-z]+)*\b"
)
_CHECKS: Final = (
    ("names a setting of the service", _SETTING),
    ("names an internal part of the service", _NAME),
    ("shows an internal error", _EXCEPTION),
    ("speaks to the people who run the service", _OPERATOR),
    ("shows an internal id", _INTERNAL_ID),
)


@final
@dataclass(frozen=True, slots=True)
class CustomerText:
    """A text that may be sent to a customer.

    Attributes:
        text: What the customer reads.

    Raises:
        TextRefused: The text may not be sent; the message says why.
    """

    text: str

    def __post_init__(self) -> None:
        if fault := find_customer_text_fault(self.text):
            raise errors.TextRefused(fault)

    def __str__(self) -> str:
        return self.text


def find_customer_text_fault(text: str) -> str:
    """Return why a text may not be sent to a customer, in words for its author; empty if it may.

    Code is ignored where the text may explain markup or template fields; names, errors and ids are refused
    there too.
    """
    if not make_storable(text).strip():
        return "it is empty"
    if find_echo(text):
        return ECHO_FAULT
    prose = _INLINE_CODE.sub(" ", _FENCED_CODE.sub(" ", text))
    if found := _REASONING.search(prose):
        return f"it shows private reasoning ({found.group().strip()!r}): write the answer alone"
    if fields := find_template_fields(prose):
        return f"the field {fields[0]!r} is not filled in: fill it in, leave it out, or explain it as `code`"
    for what, pattern in _CHECKS:
        if found := pattern.search(text):
            return f"it {what} ({found.group().strip()!r}): leave that out"
    return ""


def _validate(text: str) -> str:
    if make_storable(text).strip() and (fault := find_customer_text_fault(text)):
        raise ValueError(fault)
    return text


# A field that holds a customer's text. A model is told of a fault like of any argument that does not fit, and
# so is a person who edits the text.
SendableText: TypeAlias = Annotated[str, AfterValidator(_validate)]


def is_internal_id(text: str) -> bool:
    """Return whether a text is an id that customers do not see."""
    return bool(_INTERNAL_ID.fullmatch(text))
