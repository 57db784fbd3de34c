"""The tools as the policy sees them, their relevance for a question, and the arguments of calls."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from core.offline.composing import Composer
from core.offline.fields import Field, choice_for, number_for, value_for
from core.offline.filling import Filler
from core.offline.lexicon import ACTION_REQUESTS, FAULT_WORDS
from core.offline.words import (
    clean,
    concept_of,
    concepts,
    end_sentence,
    headline,
    is_general,
    reads,
    requested_verbs,
    shorten_sentence,
    tokens,
)

_CLAUSE_END: Final = re.compile(r"[.,;:(\n]")
_NAMED: Final = 4.0
_SEARCHES: Final = 0.4
_SEARCH_WORDS: Final = frozenset({"find", "query", "browse", "recall"})


@dataclass(frozen=True)
class Tool:
    """A bound tool.

    Attributes:
        name: Its name.
        description: What it says about itself.
        parameters: JSON schema of its arguments.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]

    @cached_property
    def name_words(self) -> tuple[str, ...]:
        """The name's words as concepts, the verb first as a rule."""
        return tuple(concept_of(word) for word in tokens(self.name))

    @cached_property
    def words(self) -> frozenset[str]:
        """Concepts of name and description."""
        return frozenset(self.name_words) | frozenset(concepts(self.description))

    @property
    def verb(self) -> str:
        """The concept of the name's first word."""
        return self.name_words[0] if self.name_words else ""

    @cached_property
    def verbs(self) -> frozenset[str]:
        """What it does: the first words of name and description."""
        return frozenset(each for each in (self.verb, *self._purpose[:1]) if each)

    @cached_property
    def objects(self) -> frozenset[str]:
        """Its object: the other words of the name and of the description's first clause."""
        return frozenset((*self.name_words[1:], *self._purpose[1:])) - self.verbs

    @cached_property
    def _purpose(self) -> list[str]:
        return concepts(_CLAUSE_END.split(self.description, maxsplit=1)[0])

    @cached_property
    def reads(self) -> bool:
        """Whether calling it changes nothing, by its verb: anything not known to read has an effect."""
        return reads(self.name)

    @property
    def searches(self) -> bool:
        """Whether it finds things by words."""
        return self.verb in _SEARCH_WORDS


def tools_from(formatted: Sequence[Mapping[str, Any]]) -> tuple[Tool, ...]:
    """Return tools from OpenAI-format dictionaries."""
    functions = [tool.get("function", tool) for tool in formatted]
    return tuple(
        Tool(
            name=str(function["name"]),
            description=clean(str(function.get("description") or "")),
            parameters=function.get("parameters") or {"type": "object", "properties": {}},
        )
        for function in functions
        if function.get("name")
    )


def relevance(tools: Sequence[Tool], question: str, hint: str = "") -> dict[str, float]:
    """Return relevance of each tool for the question, by name: shared concepts, weighted by rarity."""
    asked = set(concepts(question))
    named = set(tokens(f"{question} {hint}".replace("_", "")))
    is_specific = any(not is_general(name) for name in asked)
    counts = {name: sum(name in tool.words for tool in tools) for name in asked}
    scores: dict[str, float] = {}
    for tool in tools:
        shared = sum(math.log(1 + len(tools) / counts[name]) for name in asked & tool.words)
        is_named = tool.name.replace("_", "").lower() in named
        scores[tool.name] = shared + _NAMED * is_named + _SEARCHES * (tool.searches and is_specific)
    return scores


MAX_KEYWORDS: Final = 8
_RAREST: Final = 3
_CONTENT: Final = re.compile(
    r"\b(?:saying|say that|that says|with the text|dizendo|com o texto)\s*:?\s*(.+)",
    re.IGNORECASE | re.DOTALL,
)
_ABOUT: Final = re.compile(
    r"\b(?:about|regarding|sobre)\s+(?:the\s+|an?\s+|[oa]s?\s+)?([^.!?\n]+)", re.IGNORECASE
)
_QUOTED: Final = re.compile(r"[\"“«]([^\"”»]{3,})[\"”»]")


@dataclass(frozen=True, slots=True)
class Arguments:
    """Arguments for one call, and the required ones that the conversation does not give."""

    values: dict[str, Any]
    missing: tuple[str, ...]


def arguments_for(tool: Tool, composer: Composer, *, narrow: bool = False) -> Arguments:
    """Fill a tool's parameters.

    Args:
        tool: The tool to call.
        composer: The conversation and what can be said about it.
        narrow: Search with the fewest, rarest key words, after a search that found nothing.
    """
    filler = Filler(ArgumentSource(composer, narrow=narrow), tool.parameters, sparse=True)
    values = filler.fill()
    return Arguments(values if isinstance(values, dict) else {}, tuple(dict.fromkeys(filler.missing)))


class ArgumentSource:
    """Contents for a tool's parameters.

    Args:
        composer: The conversation and what can be said about it.
        narrow: Whether queries have the fewest, rarest key words only.
    """

    def __init__(self, composer: Composer, *, narrow: bool = False) -> None:
        self._composer = composer
        self._conversation = composer.conversation
        self._narrow = narrow

    def text(self, field: Field) -> str | None:
        """By what the field is for: key words, a headline, a message, a value the conversation has."""
        if field.kind == "query":
            return self._query() or None
        if field.kind in {"headline", "message", "description", "reason", "request", "next"}:
            return self._prose(field)
        return value_for(field, self._conversation)

    def spare_text(self, field: Field) -> str:
        """Return the task in one line: of all there is, the likeliest to be of use."""
        if field.kind in {"name", "query", "other"}:
            return self._query() or headline(self._conversation.task) or "-"
        return headline(self._conversation.task) or "-"

    def number(self, field: Field, low: float | None, high: float | None) -> float | None:
        """Return a number the conversation has for the field."""
        return number_for(field, self._conversation, low, high)

    def flag(self, field: Field) -> bool | None:  # noqa: ARG002 - requests seldom say it
        """Return ``None``: the schema's default is used."""
        return None

    def choice(self, field: Field, options: Sequence[Any]) -> int | None:
        """Return the option the conversation speaks of."""
        return choice_for(field, options, self._conversation)

    def items(self, field: Field) -> list[str] | None:
        """Return key words for lists of them, else the one value there is."""
        if field.kind == "query" or {"tags", "labels", "keywords"} & set(field.words):
            return self._composer.key_words[:MAX_KEYWORDS] or None
        text = self.text(field)
        return [text] if text else None

    @property
    def _wants_action(self) -> bool:
        return bool(set(requested_verbs(self._conversation.task)) & ACTION_REQUESTS)

    def _prose(self, field: Field) -> str | None:
        given = self._find_given()
        if field.kind == "headline":
            about = _ABOUT.search(self._composer.matter) if self._wants_action else None
            return headline(about.group(1) if about else self._composer.matter) or None
        if field.kind in {"message", "next"}:
            return given or self._composer.message or self._restate_request()
        if field.kind == "description":
            return given or self._composer.description
        if field.kind == "reason":
            return self._composer.known_so_far()
        return shorten_sentence(self._conversation.task, 2_000) or None

    def _find_given(self) -> str:
        """Return what the task itself says to write."""
        found = _CONTENT.search(self._conversation.task)
        quoted = _QUOTED.search(found.group(1)) if found else None
        return (quoted.group(1) if quoted else found.group(1)).strip() if found else ""

    def _restate_request(self) -> str | None:
        return end_sentence(shorten_sentence(self._conversation.task, 1_000)) or None

    def _query(self) -> str:
        words = self._composer.key_words[:MAX_KEYWORDS]
        if self._narrow:
            words = self._rarest(words)
        return " ".join(words)

    def _rarest(self, words: list[str]) -> list[str]:
        """The words likely to be rarest, in their order: long ones before codes and words for faults."""
        ranked = sorted(
            words,
            key=lambda word: (
                not word.isalpha(),
                concept_of(word) in FAULT_WORDS,
                is_general(concept_of(word)),
                -len(word),
            ),
        )
        chosen = set(ranked[:_RAREST])
        return [word for word in words if word in chosen]
