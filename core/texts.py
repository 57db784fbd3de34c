"""Texts as Postgres can keep them, and as words are compared."""

import unicodedata
from functools import lru_cache


def storable(text: str) -> str:
    """The text without NUL and halves of surrogate pairs, which ``jsonb`` refuses."""
    return text.replace("\0", "").encode("utf-8", "ignore").decode("utf-8")


def printable(text: str) -> str:
    """The text with halves of surrogate pairs, which can be neither sent nor stored, made visible."""
    return text.encode(errors="replace").decode()


def is_storable(text: str) -> bool:
    """Whether the text can be kept as it is."""
    return storable(text) == text


@lru_cache(maxsize=65_536)
def plain(word: str) -> str:
    """A word in lower case, without accents; remembered, as words come again."""
    return unaccented(word)


def unaccented(text: str) -> str:
    """The text in lower case, without accents."""
    return without_accents(text).lower()


def without_accents(text: str) -> str:
    """The text without accents, its case kept."""
    if text.isascii():
        return text
    decomposed = unicodedata.normalize("NFKD", text)
    return "".join(character for character in decomposed if not unicodedata.combining(character))
