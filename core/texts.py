"""Texts: made safe to store and to put into prompts, normalised for comparison, and their language."""

import re
import unicodedata
from typing import Final, Literal, TypeAlias


def make_storable(text: str) -> str:
    """Return the text without NUL and unpaired surrogates, which ``jsonb`` rejects."""
    return text.replace("\0", "").encode("utf-8", "ignore").decode("utf-8")


def make_printable(text: str) -> str:
    """Return the text with unpaired surrogates, which cannot be sent or stored, replaced by ``?``."""
    return text.encode(errors="replace").decode()


def is_storable(text: str) -> bool:
    """Return whether Postgres can store the text unchanged."""
    return make_storable(text) == text


def normalise_text(text: str) -> str:
    """Return the text in lower case and without accents."""
    return strip_accents(text).lower()


def strip_accents(text: str) -> str:
    """Return the text without accents, in its own case."""
    if text.isascii():
        return text
    decomposed = unicodedata.normalize("NFKD", text)
    return "".join(character for character in decomposed if not unicodedata.combining(character))


def fence(name: str, text: str) -> str:
    """Return the text between ``<name>`` tags; tags of that name inside the text are disarmed."""
    inside = re.sub(rf"<(?=\s*/?\s*{name}\b)", "\u2039", text, flags=re.IGNORECASE)
    return f"<{name}>\n{inside}\n</{name}>"


def join_lines(text: str) -> str:
    """Return the text on one line, so that it cannot imitate other lines of a prompt."""
    return " ".join(text.split())


def cut(text: str, limit: int) -> str:
    """Return at most ``limit`` characters of the text, followed by how many were cut."""
    missing = len(text) - limit
    return text if missing <= 0 else f"{text[:limit]}… ({missing} more characters were cut)"


Language: TypeAlias = Literal["en", "pt"]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Function words, which are frequent in any text; without accents.
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
# Of a text, so much is examined.
_CHARACTERS: Final = 2_000
_WORD: Final = re.compile(r"[a-z0-9]+")
_PORTUGUESE_LETTERS: Final = re.compile("[ãõçÃÕÇ]")


def detect_language(text: str, locale: str | None = None, *, default: Language = "en") -> Language:
    """Return the language for fixed texts: of the locale if there is one, else of the text.

    The language of a text is the one whose function words are more frequent at its beginning.

    Args:
        text: What somebody wrote.
        locale: BCP 47 tag. Every locale but the Portuguese ones means English, as there are no other texts.
        default: The language when neither one's words are more frequent.
    """
    if locale:
        return "pt" if locale.lower().partition("-")[0] == "pt" else "en"
    beginning = text[:_CHARACTERS]
    words = _WORD.findall(normalise_text(beginning))
    portuguese = sum(word in _PORTUGUESE for word in words) + 2 * len(_PORTUGUESE_LETTERS.findall(beginning))
    english = sum(word in _ENGLISH for word in words)
    if portuguese == english:
        return default
    return "pt" if portuguese > english else "en"
