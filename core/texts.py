"""Texts as Postgres can keep them, and as words are compared."""

import re
import unicodedata
from functools import lru_cache
from typing import Final, Literal, TypeAlias


def make_storable(text: str) -> str:
    """The text without NUL and halves of surrogate pairs, which ``jsonb`` refuses."""
    return text.replace("\0", "").encode("utf-8", "ignore").decode("utf-8")


def make_printable(text: str) -> str:
    """The text with halves of surrogate pairs, which can be neither sent nor stored, made visible."""
    return text.encode(errors="replace").decode()


def is_storable(text: str) -> bool:
    """Whether the text can be kept as it is."""
    return make_storable(text) == text


@lru_cache(maxsize=65_536)
def normalise_word(word: str) -> str:
    """A word in lower case, without accents; remembered, as words come again."""
    return normalise_text(word)


def normalise_text(text: str) -> str:
    """The text in lower case, without accents."""
    return strip_accents(text).lower()


def strip_accents(text: str) -> str:
    """The text without accents, its case kept."""
    if text.isascii():
        return text
    decomposed = unicodedata.normalize("NFKD", text)
    return "".join(character for character in decomposed if not unicodedata.combining(character))


def fence(name: str, text: str) -> str:
    """The text between marks, of which it can hold none itself."""
    inside = re.sub(rf"<(?=/?\s*{name}\b)", "\u2039", text, flags=re.IGNORECASE)
    return f"<{name}>\n{inside}\n</{name}>"


def join_lines(text: str) -> str:
    """The text without line breaks, so that it cannot be taken for other lines."""
    return " ".join(text.split())


def cut(text: str, limit: int) -> str:
    """At most ``limit`` characters of the text, and how many are missing."""
    missing = len(text) - limit
    return text if missing <= 0 else f"{text[:limit]}… ({missing} more characters were cut)"


Language: TypeAlias = Literal["en", "pt"]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Small words are frequent in any text, whatever it is about.
_PORTUGUESE: Final = _words(
    """
    de do da dos das que em um uma para com nao por no na os ao mais como mas foi ele ela seu sua ou
    quando muito nos ja eu tambem pelo pela ate isso meu minha voce esta por favor qual ola obrigado
    cliente erro quero preciso e o
    """
)
_ENGLISH: Final = _words(
    """
    the of and to in is that for it with as was on are this be by at or from have an not you your my i
    when what how can please which their our we customer error need want do does help
    """
)
# The beginning tells it.
_CHARACTERS: Final = 2_000
_WORD: Final = re.compile(r"[a-z0-9]+")
_OF_PORTUGUESE: Final = re.compile("[ãõçÃÕÇ]")


def detect_language(text: str, locale: str | None = None, *, default: Language = "en") -> Language:
    """The locale's language where there is a locale, else the one whose small words prevail in the text.

    Args:
        text: What somebody wrote.
        locale: BCP 47 tag. Any but Portuguese is English here, as no other is written in.
        default: Where neither language's words prevail.
    """
    if locale:
        return "pt" if locale.lower().partition("-")[0] == "pt" else "en"
    beginning = text[:_CHARACTERS]
    words = _WORD.findall(normalise_text(beginning))
    portuguese = sum(word in _PORTUGUESE for word in words) + 2 * len(_OF_PORTUGUESE.findall(beginning))
    english = sum(word in _ENGLISH for word in words)
    if portuguese == english:
        return default
    return "pt" if portuguese > english else "en"
