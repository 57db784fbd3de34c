"""Which of the two languages that fixed texts exist in a text is written in."""

import re
from typing import Final, Literal, TypeAlias

from core.texts import normalise_text

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


def language_of(text: str, locale: str | None = None, *, default: Language = "en") -> Language:
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
