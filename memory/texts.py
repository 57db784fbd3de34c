"""How messages are indexed: split into units, with their words, date and identifiers."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, TypeAlias

from core.texts import Language, detect_language, format_date, make_storable, strip_accents

Configuration: TypeAlias = Literal["english", "portuguese", "spanish"]

CONFIGURATIONS: Final[dict[Language, Configuration]] = {
    "en": "english",
    "pt": "portuguese",
    "es": "spanish",
}

# With its context, a unit fits into the window of a small embedding model.
UNIT_CHARACTERS: Final = 1_200
# So many parts of a message are embedded before the further parts of any other: about 4,800 characters.
FIRST_PARTS: Final = 4
# This much of the end of the previous unit is embedded with a unit.
CONTEXT_CHARACTERS: Final = 400

_WORD: Final = re.compile(r"\w+")
_DIGIT: Final = re.compile(r"\d")
_BREAKS: Final = ("\n\n", "\n", ". ", "? ", "! ", "; ", ", ", " ")
_TOKEN: Final = re.compile(r"[\w.+#@/'-]+")
_SENTENCE_END: Final = (".", "?", "!", ":")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A message, or a part of a long one, as it is indexed.

    Attributes:
        part: The number of the part, from 0.
        configuration: Postgres's text search configuration for its language.
        date: The day of the message, in its language.
        text: The text that is shown.
        words: The text of the full-text index.
        identifiers: The text of the trigram search.
    """

    part: int
    configuration: Configuration
    date: str
    text: str
    words: str
    identifiers: str


def split_into_units(text: str, at: datetime) -> list[Unit]:
    """Return a message's units: one for most messages, several for a long one, at least one."""
    language = detect_language(text)
    return [
        Unit(
            part=number,
            configuration=CONFIGURATIONS[language],
            date=format_date(at, language),
            text=part,
            words=add_unaccented_words(part),
            identifiers=" ".join(dict.fromkeys(extract_identifiers(part))),
        )
        for number, part in enumerate(split_text(make_storable(text)))
    ]


def split_text(text: str, limit: int = UNIT_CHARACTERS) -> list[str]:
    """Split a text into parts of at most ``limit`` characters, at the end of a paragraph, sentence or word.

    Only white space at the cuts is lost.
    """
    parts: list[str] = []
    rest = text.strip()
    while len(rest) > limit:
        cut = _find_cut(rest, limit)
        parts.append(rest[:cut].rstrip())
        rest = rest[cut:].lstrip()
    return [*parts, rest]


def _find_cut(text: str, limit: int) -> int:
    # A better break does not justify a part shorter than half the limit.
    for mark in _BREAKS:
        at = text.rfind(mark, limit // 2, limit)
        if at >= 0:
            return at + len(mark)
    return limit


def add_unaccented_words(text: str) -> str:
    """Return the text followed by its accented words without accents, as people often type them."""
    unaccented = [plain for word in _WORD.findall(text) if (plain := strip_accents(word)) != word]
    return " ".join([text, *unaccented])


def extract_identifiers(text: str) -> Iterator[str]:
    """Yield the addresses, numbers (of orders, errors, versions) and names of a text, in their order.

    A name is a capitalised word that does not begin a sentence.
    """
    begins_sentence = True
    for match in _TOKEN.finditer(text):
        token = match.group()
        bare = token.strip("./-+#'")
        is_name = bare[:1].isupper() and not begins_sentence
        following = text[match.end() : match.end() + 1]
        begins_sentence = token.endswith(_SENTENCE_END) or following in {"?", "!", ":", "\n"}
        # A shorter token has no trigram of its own.
        if len(bare) > 2 and (is_name or "@" in bare or _DIGIT.search(bare)):  # noqa: PLR2004
            yield bare


def build_embedded_text(date: str, before: str, text: str) -> str:
    """Return the text that a unit's vector is made of: its day, the end of the previous unit, and itself."""
    return "\n".join(part for part in (date, before[-CONTEXT_CHARACTERS:].strip(), text) if part)
