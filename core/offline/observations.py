"""Observations: the content of a tool's message, whether the tool failed, and its documents and facts."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any, Final, Literal, TypeAlias

from langchain_core.messages import ToolMessage

from core.offline.words import clean, sentences, tokens
from core.texts import normalise_word

Outcome: TypeAlias = Literal["found", "empty", "unavailable", "refused"]

_TITLE_KEYS: Final = ("title", "titulo", "subject", "assunto", "headline", "question", "name", "item")
_ERROR_KEYS: Final = ("error", "erro", "exception")
_SUCCESS_KEYS: Final = ("success", "ok", "sucesso")
_ENVELOPES: Final = ("result", "results", "data")
_PROSE_WORDS: Final = 6
_MAX_LEAVES: Final = 600
_UNAVAILABLE: Final = re.compile(
    r"unavailable|time[ds]?[ -]?out|timeout|unreachable|could not (?:be )?reach|connection|\b50[234]\b"
    r"|try again later|indispon|tempo esgotado"
)
_NOTHING: Final = re.compile(
    r"^(?:no|nothing|none|nenhum\w*|nada)\b.{0,80}$"
    r"|\b(?:no results?|nothing (?:was )?found|not found|no match\w*|0 results|nao encontrad\w*)\b"
)


@dataclass(frozen=True, slots=True)
class Document:
    """A piece of prose a tool returned: its title where it has one, and its sentences."""

    title: str
    sentences: tuple[str, ...]
    tool: str


@dataclass(frozen=True, slots=True)
class Fact:
    """A short value a tool returned, under the keys that lead to it, in a record that may have a title.

    ``record`` tells the records of a list apart; 0 is none of a list.
    """

    keys: tuple[str, ...]
    value: str | int | float | bool
    title: str
    tool: str
    record: int = 0


@dataclass(frozen=True, slots=True)
class Observation:
    """One tool's reply.

    Attributes:
        tool: The tool's name.
        call_id: The call it answers.
        text: The reply as it came.
        outcome: Whether it brought something, and how it failed if it did.
        fault: The tool's own words where it failed.
    """

    tool: str
    call_id: str
    text: str
    outcome: Outcome
    fault: str
    documents: tuple[Document, ...]
    facts: tuple[Fact, ...]

    @property
    def failed(self) -> bool:
        """Whether the tool reported a failure; an empty result is not one."""
        return self.outcome in {"unavailable", "refused"}


def read_observation(message: ToolMessage, tool: str) -> Observation:
    """Take a tool's message apart: JSON is walked, anything else is prose."""
    text = clean(message.text)
    content = _parse(text)
    fault = _fault(content, text, is_error=message.status == "error")
    documents: tuple[Document, ...] = ()
    facts: tuple[Fact, ...] = ()
    if not fault:
        content = _unwrap(content)
        documents, facts = _split_content(content, tool)
    return Observation(
        tool=tool,
        call_id=message.tool_call_id,
        text=text,
        outcome=_outcome(text, content, fault, has_content=bool(documents or facts)),
        fault=fault,
        documents=documents,
        facts=facts,
    )


def summarised_observation(tool: str, said: str, *, failed: bool) -> Observation:
    """Return an observation of which only a summary is left."""
    content = () if failed else (Document("", tuple(sentences(said)), tool),)
    outcome: Outcome = "empty" if not said else "found"
    return Observation(
        tool=tool,
        call_id="",
        text=said,
        outcome="refused" if failed else outcome,
        fault=said if failed else "",
        documents=content,
        facts=(),
    )


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _fault(content: Any, text: str, *, is_error: bool) -> str:
    said = _said_fault(content) if isinstance(content, dict) else ""
    if said:
        return said
    return (text.strip() or "failed") if is_error else ""


def _said_fault(content: dict[str, Any]) -> str:
    denied = any(content.get(key) is False for key in _SUCCESS_KEYS)
    error = next((content[key] for key in _ERROR_KEYS if content.get(key)), None)
    if error is None and not denied:
        return ""
    holder = error if isinstance(error, dict) else content
    message = holder.get("message") or holder.get("detail")
    if isinstance(message, str):
        return message
    return error if isinstance(error, str) else json.dumps(content, ensure_ascii=False)


def _kind_of_fault(content: Any, text: str, fault: str) -> str:
    """Return the tool's own name for the kind of failure, else its whole message."""
    error = (
        next((content[key] for key in _ERROR_KEYS if content.get(key)), None)
        if isinstance(content, dict)
        else None
    )
    kind = error.get("kind") or error.get("type") or error.get("code") if isinstance(error, dict) else None
    return kind if isinstance(kind, str) else f"{fault} {text[:500]}"


def _unwrap(content: Any) -> Any:
    """Return what an envelope such as ``{"success": true, "result": ...}`` holds."""
    if not isinstance(content, dict) or not any(content.get(key) is True for key in _SUCCESS_KEYS):
        return content
    held = [content[key] for key in _ENVELOPES if key in content]
    return held[0] if held else content


def _outcome(text: str, content: Any, fault: str, *, has_content: bool) -> Outcome:
    if fault:
        said = normalise_word(_kind_of_fault(content, text, fault))
        return "unavailable" if _UNAVAILABLE.search(said) else "refused"
    return "found" if has_content and not _says_nothing(content) else "empty"


def _says_nothing(content: Any) -> bool:
    if isinstance(content, dict):
        lists = [value for value in content.values() if isinstance(value, list)]
        others = [value for value in content.values() if isinstance(value, dict) and value]
        if lists and not any(lists) and not others:
            return not any(
                isinstance(value, str) and len(tokens(value)) >= _PROSE_WORDS for value in content.values()
            )
        content = content.get("message", "") if len(content) == 1 else ""
    return isinstance(content, str) and bool(_NOTHING.search(normalise_word(content.strip()[:200])))


def _split_content(content: Any, tool: str) -> tuple[tuple[Document, ...], tuple[Fact, ...]]:
    documents: list[Document] = []
    facts: list[Fact] = []
    for keys, title, record, value in _leaves(content, count(1)):
        if isinstance(value, str) and (len(tokens(value)) >= _PROSE_WORDS or not keys):
            if value != title:
                documents.append(Document(title, tuple(sentences(value)), tool))
        elif value is not None and value not in {"", title}:
            facts.append(Fact(keys, value, title, tool, record))
        if len(documents) + len(facts) >= _MAX_LEAVES:
            break
    return tuple(documents), tuple(facts)


def _leaves(
    value: Any,
    numbers: Iterator[int],
    *,
    keys: tuple[str, ...] = (),
    title: str = "",
    record: int = 0,
    depth: int = 0,
) -> Iterator[tuple[tuple[str, ...], str, int, Any]]:
    """Return all values that hold no others, with the keys to them, and title and number of their record."""
    if depth > 12:  # noqa: PLR2004 - deeper than any record a person reads
        return
    if isinstance(value, dict):
        own = next((value[key] for key in _TITLE_KEYS if isinstance(value.get(key), str)), title)
        for key, inner in value.items():
            yield from _leaves(
                inner, numbers, keys=(*keys, str(key)), title=own, record=record, depth=depth + 1
            )
    elif isinstance(value, list):
        for inner in value:
            number = next(numbers) if isinstance(inner, dict) else record
            yield from _leaves(inner, numbers, keys=keys, title=title, record=number, depth=depth + 1)
    else:
        yield keys, title, record, value
