"""The tools as the policy sees them: what they are about, and whether they read or have an effect."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from core.offline.lexicon import READING_VERBS
from core.offline.words import clean, concept, concepts, is_general, stem, tokens

_CLAUSE_END: Final = re.compile(r"[.,;:(\n]")
_NAMED: Final = 4.0
_SEARCHES: Final = 0.4
_SEARCH_WORDS: Final = frozenset({"find", "query", "browse", "recall"})
_READING_STEMS: Final = frozenset(stem(verb) for verb in READING_VERBS)
_SHORTEST_PREFIX: Final = 5


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
        return tuple(concept(word) for word in tokens(self.name))

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
        """What it does it to: the other words of the name and of the description's first clause."""
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


def reads(name: str) -> bool:
    """Whether a tool of this name only reads: its first or last word says so."""
    named = tokens(name)
    return bool(named) and (_is_reading(named[0]) or _is_reading(named[-1]))


def tools_from(formatted: Sequence[Mapping[str, Any]]) -> tuple[Tool, ...]:
    """Tools from OpenAI-format dictionaries."""
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
    """How much each tool has to do with the question, by name: shared concepts, the rarer the weightier."""
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


def _is_reading(word: str) -> bool:
    root = stem(word)
    if root in _READING_STEMS:
        return True
    return any(len(verb) >= _SHORTEST_PREFIX and word.startswith(verb) for verb in _READING_STEMS)
