"""Messages as they are indexed: cut into units, with their words, date and identifiers."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, TypeAlias

from core.texts import Language, detect_language, make_storable, strip_accents

Configuration: TypeAlias = Literal["english", "portuguese"]

CONFIGURATIONS: Final[dict[Language, Configuration]] = {"en": "english", "pt": "portuguese"}

# What fits, with its context, into the window of a small embedding model, and reads as one thought.
UNIT_CHARACTERS: Final = 1_200
# Of the unit before, this much of the end is embedded with a unit.
CONTEXT_CHARACTERS: Final = 400

_MONTHS: Final[dict[Language, str]] = {
    "en": "January February March April May June July August September October November December",
    "pt": "janeiro fevereiro março abril maio junho julho agosto setembro outubro novembro dezembro",
}
_WORD: Final = re.compile(r"\w+")
_BREAKS: Final = ("\n\n", "\n", ". ", "? ", "! ", "; ", ", ", " ")
_TOKEN: Final = re.compile(r"[\w.+#@/'-]+")
_SENTENCE_END: Final = (".", "?", "!", ":")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A part of a message, as it is indexed.

    Attributes:
        part: From 0.
        configuration: Postgres's text search configuration of its language.
        date: The day it was said, in its language.
        text: What is shown.
        words: What full text is made of.
        identifiers: What trigrams are made of.
    """

    part: int
    configuration: Configuration
    date: str
    text: str
    words: str
    identifiers: str


def units(text: str, at: datetime) -> list[Unit]:
    """A message's units: one for most, several for a long one, never none."""
    language = detect_language(text)
    return [
        Unit(
            part=number,
            configuration=CONFIGURATIONS[language],
            date=date_text(at, language),
            text=part,
            words=searchable(part),
            identifiers=" ".join(dict.fromkeys(identifiers(part))),
        )
        for number, part in enumerate(parts(make_storable(text)))
    ]


def parts(text: str, limit: int = UNIT_CHARACTERS) -> list[str]:
    """The text in pieces of at most ``limit`` characters, cut where a paragraph, sentence or word ends.

    Joined again they are the text, but for white space at the cuts.
    """
    found: list[str] = []
    rest = text.strip()
    while len(rest) > limit:
        cut = _cut(rest, limit)
        found.append(rest[:cut].rstrip())
        rest = rest[cut:].lstrip()
    return [*found, rest]


def _cut(text: str, limit: int) -> int:
    # No piece is shorter than half, for the sake of a break that is better.
    for mark in _BREAKS:
        at = text.rfind(mark, limit // 2, limit)
        if at >= 0:
            return at + len(mark)
    return limit


def searchable(text: str) -> str:
    """The text, and its accented words again without accents, as people type them in a hurry."""
    plain = [folded for word in _WORD.findall(text) if (folded := strip_accents(word)) != word]
    return " ".join([text, *plain])


def identifiers(text: str) -> Iterator[str]:
    """Addresses, numbers (of orders, errors, versions) and names in a text, in its order.

    A name is a capitalised word in the middle of a sentence.
    """
    begins = True
    for found in _TOKEN.finditer(text):
        token = found.group()
        bare = token.strip("./-+#'")
        named = bare[:1].isupper() and not begins
        begins = token.endswith(_SENTENCE_END) or text[found.end() : found.end() + 1] in {"?", "!", ":", "\n"}
        # Shorter ones have no trigram of their own.
        if len(bare) > 2 and (named or "@" in bare or any(character.isdigit() for character in bare)):  # noqa: PLR2004
            yield bare


def date_text(at: datetime, language: Language) -> str:
    """The day, as people write it: ``7 May 2023``, ``7 de maio de 2023``."""
    month = _MONTHS[language].split()[at.month - 1]
    return f"{at.day} de {month} de {at.year}" if language == "pt" else f"{at.day} {month} {at.year}"


def embedded_text(date: str, before: str, text: str) -> str:
    """What a unit's vector is made of: its day, the end of the unit before it, and itself."""
    return "\n".join(part for part in (date, before[-CONTEXT_CHARACTERS:].strip(), text) if part)
