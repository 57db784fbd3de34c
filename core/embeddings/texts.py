"""Texts as any embedding model can read them: bounded, valid Unicode, never empty."""

from typing import Final

from core.texts import make_storable

MAX_CHARACTERS: Final = 8_000
# Providers refuse an empty text; a lone stop means as little.
_NOTHING: Final = "."
_GAP: Final = " … "


def readable(text: str) -> str:
    """The text without NUL and halves of surrogate pairs, cut to ``MAX_CHARACTERS``, never empty."""
    return shortened(make_storable(text[: 4 * MAX_CHARACTERS]), MAX_CHARACTERS).strip() or _NOTHING


def shortened(text: str, limit: int) -> str:
    """At most ``limit`` characters: the beginning and, for a third of them, the end.

    A letter says what it is about in its first lines and what it asks for in its last ones.
    """
    if len(text) <= limit:
        return text
    end = max((limit - len(_GAP)) // 3, 0)
    head = text[: max(limit - len(_GAP) - end, 0)]
    return f"{head}{_GAP}{text[len(text) - end :]}"[:limit]
