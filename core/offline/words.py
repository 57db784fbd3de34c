"""Words: tokens, stems and concepts."""

import re
import unicodedata
from functools import lru_cache
from typing import Final

from core.offline.lexicon import GENERAL_WORDS, GROUPS, STOP_WORDS, word_set
from core.texts import normalise_text, normalise_word

# Longest text looked at in one piece: what lies behind is cut, so that work stays bounded.
MAX_TEXT: Final = 20_000

# A word; decimals and codes with a digit (``2.3.1``, ``T-77``) hold together.
_WORD: Final = re.compile(r"[a-z0-9]+(?:[.,][0-9]+|-(?=[a-z0-9]*[0-9])[a-z0-9]+)*")
_SURFACE: Final = re.compile(r"[^\W_]+(?:[.,][0-9]+|-(?=[^\W_]*[0-9])[^\W_]+)*")
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_SHORTEST_STEM: Final = 3
# Texts up to this length, sentences mostly, are taken apart once.
_REMEMBERED: Final = 400
_SUFFIXES: Final = tuple(
    sorted(
        word_set(
            """
            izations ization amentos amento imentos imento ations ation acoes icoes coes mente ments ment
            ando endo indo aram eram iram ings ing ions ion acao icao idade ness ies ied ers eis ados adas
            idos idas ado ada ido ida ar er ir ou ei am em ed es is ly os as s e a o y i
            """
        ),
        key=lambda suffix: (-len(suffix), suffix),
    )
)


def clean(text: str) -> str:
    """The text as valid Unicode without control characters, no longer than ``MAX_TEXT``."""
    valid = text[:MAX_TEXT].encode("utf-8", "replace").decode("utf-8")
    return "".join(
        character for character in valid if character in "\n\t" or unicodedata.category(character) != "Cc"
    )


def tokens(text: str) -> list[str]:
    """All words, lower case and unaccented; ``snake_case`` and ``camelCase`` come apart."""
    return _WORD.findall(normalise_text(_CAMEL.sub(" ", text)))


def surface_words(text: str) -> list[str]:
    """All words as they are written."""
    return _SURFACE.findall(text)


@lru_cache(maxsize=65_536)
def stem(word: str) -> str:
    """The word without its English or Portuguese ending; words with digits stay as they are."""
    if not word.isalpha():
        return word
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= _SHORTEST_STEM:
            return _undouble(word[: -len(suffix)])
    return word


def _undouble(root: str) -> str:
    doubled = len(root) > _SHORTEST_STEM and root[-1] == root[-2] and root[-1] not in "lsaeiour"
    return root[:-1] if doubled else root


_CONCEPTS: Final[dict[str, str]] = {
    stem(normalise_word(word)): group.split()[0]
    for group in reversed(GROUPS)
    for word in reversed(group.split())
}
_GENERAL: Final = GENERAL_WORDS | {_CONCEPTS.get(stem(word), stem(word)) for word in GENERAL_WORDS}


@lru_cache(maxsize=65_536)
def concept(word: str) -> str:
    """What stands for the word in comparisons: its group's name, else its stem."""
    root = stem(normalise_word(word))
    return _CONCEPTS.get(root, root)


def concepts(text: str) -> list[str]:
    """Concepts of the content words, in order, with repetitions."""
    return list(_concepts_of(text) if len(text) <= _REMEMBERED else _concepts_of.__wrapped__(text))


@lru_cache(maxsize=8_192)
def _concepts_of(text: str) -> tuple[str, ...]:
    return tuple(concept(word) for word in tokens(text) if is_content(word))


def is_content(word: str) -> bool:
    """Whether the word (lower case, unaccented) carries meaning of its own."""
    return word not in STOP_WORDS and (len(word) > 1 or word.isdigit())


def is_general(name: str) -> bool:
    """Whether the concept occurs in nearly every request and says little about this one."""
    return name in _GENERAL


def keywords(text: str, limit: int = 8) -> list[str]:
    """The words that say what a request is about, as written, without repetitions."""
    content = [
        (word, concept(word))
        for word in surface_words(text)
        if is_content(normalise_word(word)) and normalise_word(word)
    ]
    specific = [(word, name) for word, name in content if not is_general(name)]
    chosen: dict[str, str] = {}
    for word, name in specific or content:
        chosen.setdefault(name, word)
    return list(chosen.values())[:limit]
