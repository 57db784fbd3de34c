"""Fixed sentences and words of the offline model, in the languages it answers in."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from core.offline.words import VOCABULARY
from core.texts import LANGUAGES, Language


@dataclass(frozen=True, slots=True)
class Phrases:
    """The sentences of one language; the fields in braces are filled in."""

    greeting: str
    thanks: str
    goodbye: str
    identity: str
    apology: str
    unable: str
    handed_over: str
    article: str
    which: str
    not_found: str
    none_in_month: str
    unavailable: str
    late: str
    of: str
    thought: str


PHRASES: Final[Mapping[Language, Phrases]] = {
    language: Phrases(**sentences) for language, sentences in VOCABULARY["phrases"].items()
}


def translate(word: str, language: Language) -> str:
    """Return the translation of a field's name or value, else the name with spaces."""
    translations = VOCABULARY["words"].get(word, "").split(" | ")
    return translations[LANGUAGES.index(language)] if len(translations) > 1 else word.replace("_", " ")
