"""The language the customer is spoken to in."""

from core.texts import Language, detect_language

# One or two words are too few to tell by: "no" is a word of both languages.
_FEWEST_WORDS = 3


def spoken_language(locale: str | None, reply: str, before: Language) -> Language:
    """The run's locale, else the language of the reply, else the one spoken before.

    Of other locales than Portuguese the fixed texts are English.
    """
    if not locale and len(reply.split()) < _FEWEST_WORDS:
        return before
    return detect_language(reply, locale, default=before)
