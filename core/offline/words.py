"""Words of customers in English, Portuguese and Spanish: concepts, codes, months, patterns and sentences."""

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from core.texts import LANGUAGES, MONTH_NUMBERS, Language, normalise_text

_MAX_CHARACTERS: Final = 4_000
_MAX_QUERY_CHARACTERS: Final = 400
# Words of the three languages are the same where their beginnings are: import, importar, importación.
_STEM_CHARACTERS: Final = 7
_LEAST_STEM: Final = 4
_ENDING: Final = re.compile(r"(?:ing|ed|[aei]r|[aeiou])$")
_TOKEN: Final = re.compile(r"[a-z0-9]+(?:['\u2019][a-z]+)?")
_CODE: Final = re.compile(r"\b[A-Za-z]{2,10}-\d[\w-]*\b|\b[A-Za-z]{3}\d{3,}\b|\b\d{3,}\b")
# Words and sentences of the languages, not of any product.
_VOCABULARY: Final[dict[str, Any]] = json.loads(
    Path(__file__).with_name("vocabulary.json").read_text(encoding="utf-8")
)
# The sentences of each language, with fields in braces.
PHRASES: Final[Mapping[Language, Mapping[str, str]]] = _VOCABULARY["phrases"]
# What shows by words what a message is; matched against normalised text.
PATTERNS: Final[Mapping[str, re.Pattern[str]]] = {
    name: re.compile("|".join(parts)) for name, parts in _VOCABULARY["patterns"].items()
}
# How customers name the status of a record, by status; matched against normalised text.
STATUSES: Final[Mapping[str, re.Pattern[str]]] = {
    status: re.compile(words) for status, words in _VOCABULARY["statuses"].items()
}
# The concepts for which a field of an account or of the platform's status is stated.
FACTS: Final[Mapping[str, frozenset[str]]] = {
    field: frozenset(concepts.split()) for field, concepts in _VOCABULARY["facts"].items()
}
# Concepts that do not say what a message is about.
VAGUE: Final = frozenset(_VOCABULARY["vague"].split())


def tokenise(text: str) -> list[str]:
    """Return the words of the beginning of a text, folded."""
    return _TOKEN.findall(normalise_text(text[:_MAX_CHARACTERS]))


def find_codes(text: str) -> list[str]:
    """Return identifiers and long numbers as they are written, such as ``ORD-7001``."""
    return list(dict.fromkeys(_CODE.findall(text[:_MAX_CHARACTERS])))


def find_months(text: str) -> list[int]:
    """Return the months a text names, 1 to 12. English "may" counts with a capital letter only."""
    named = [word for word in tokenise(text) if word in MONTH_NUMBERS]
    return [MONTH_NUMBERS[word] for word in named if word != "may" or "May" in text]


def find_concepts(text: str) -> list[str]:
    """Return the concepts of a text's content words, in order, without repetition."""
    words = (word for word in tokenise(text.replace("_", " ")) if word not in _STOP_WORDS and len(word) > 1)
    return list(dict.fromkeys(map(_find_concept, words)))


def build_query(text: str) -> str:
    """Return a text for a search, with the English names of its concepts, as articles may be in English."""
    names = [concept for concept in find_concepts(text) if concept in _NAMES]
    return " ".join([*text[:_MAX_QUERY_CHARACTERS].split(), *names])


def is_effect(tool: str) -> bool:
    """Return whether a tool changes something, by the verb of its name."""
    return bool(PATTERNS["effect"].match(tool))


def is_handoff(tool: str) -> bool:
    """Return whether a tool calls a person, by its name."""
    return bool(PATTERNS["handoff"].search(tool))


def translate(word: str, language: Language) -> str:
    """Return the translation of a field's name or value, else the name with spaces."""
    translations: list[str] = _VOCABULARY["words"].get(word, "").split(" | ")
    return translations[LANGUAGES.index(language)] if len(translations) > 1 else word.replace("_", " ")


@lru_cache(maxsize=4_096)
def _find_concept(word: str) -> str:
    """Return the concept a word stands for: that of its group, else its stem."""
    stem = _stem(word)
    return _GROUPS.get(stem, stem)


def _stem(word: str) -> str:
    singular = word.removesuffix("s")
    base = _ENDING.sub("", singular)
    return (base if len(base) >= _LEAST_STEM else singular)[:_STEM_CHARACTERS]


_STOP_WORDS: Final = frozenset(" ".join(_VOCABULARY["stop_words"]).split())
# A concept is a line of words that mean much the same, named by its first word.
_GROUPS: Final[Mapping[str, str]] = {
    _stem(word): line.split()[0] for line in _VOCABULARY["concepts"] for word in line.split()
}
_NAMES: Final = frozenset(_GROUPS.values())
