"""Words of customers in English, Portuguese and Spanish: tokens, concepts and codes."""

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from core.texts import MONTH_NUMBERS, normalise_text

MAX_CHARACTERS: Final = 4_000


def word_set(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())


# Words and sentences of the three languages, not of any product. A concept is a line of words that mean much
# the same, named by its first word.
VOCABULARY: Final[dict[str, Any]] = json.loads(
    Path(__file__).with_name("vocabulary.json").read_text(encoding="utf-8")
)
_STOP_WORDS: Final = word_set(" ".join(VOCABULARY["stop_words"]))
_GROUPS: Final = {word: line.split()[0] for line in VOCABULARY["concepts"] for word in line.split()}
_TOKEN: Final = re.compile(r"[a-z0-9]+(?:['\u2019][a-z]+)?")
_CODE: Final = re.compile(r"\b[A-Za-z]{2,10}-\d[\w-]*\b|\b[A-Za-z]{3}\d{3,}\b|\b\d{3,}\b")


def tokenise(text: str) -> list[str]:
    """Return the words of the beginning of a text, folded."""
    return _TOKEN.findall(normalise_text(text[:MAX_CHARACTERS]))


def find_codes(text: str) -> list[str]:
    """Return identifiers and long numbers as they are written, such as ``ORD-7001``."""
    return list(dict.fromkeys(_CODE.findall(text[:MAX_CHARACTERS])))


def find_months(text: str) -> list[int]:
    """Return the months a text names, 1 to 12. English "may" counts with a capital letter only."""
    named = [word for word in tokenise(text) if word in MONTH_NUMBERS]
    return [MONTH_NUMBERS[word] for word in named if word != "may" or "May" in text]


@lru_cache(maxsize=4_096)
def find_concept(word: str) -> str:
    """Return the concept a word stands for: that of its group, else its stem."""
    return _GROUPS.get(word) or _GROUPS.get(_stem(word)) or _stem(word)


def find_concepts(text: str) -> list[str]:
    """Return the concepts of a text's content words, in order, without repetition."""
    return list(
        dict.fromkeys(
            find_concept(word) for word in tokenise(text) if word not in _STOP_WORDS and len(word) > 1
        )
    )


def find_key_words(text: str, limit: int = 8) -> list[str]:
    """Return the content words of a text as they are written, for a search."""
    words = re.findall(r"\w[\w-]*", text[:MAX_CHARACTERS])
    kept = [word for word in words if normalise_text(word) not in _STOP_WORDS and len(word) > 1]
    return list(dict.fromkeys(kept))[:limit]


def _stem(word: str) -> str:
    for ending in ("ings", "ing", "ed", "es", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 4:  # noqa: PLR2004 - shorter stems mean nothing
            return word[: -len(ending)]
    return word
