"""The clauses of a message: sentences, and what is joined by a conjunction within one."""

import re
from typing import Final

MOST_CLAUSES: Final = 8
_FEWEST_WORDS: Final = 3

_BREAK: Final = re.compile(
    r"(?<=[.!?…;])\s+|\n+"
    r"|\s*,?\s+(?=(?:and|but|also|plus|besides|e|mas|também|tambem|além|alem|aliás|alias)\s)",
    re.IGNORECASE,
)


def clauses(text: str) -> list[str]:
    """At most ``MOST_CLAUSES`` pieces in order; one too short to be about something stays with its neighbour.

    The pieces joined by a space are the text, but for its white space and the commas at which it was cut.
    """
    found: list[str] = []
    for piece in _BREAK.split(text):
        clause = " ".join(piece.split())
        if not clause:
            continue
        if found and (len(found) == MOST_CLAUSES or _short(clause) or _short(found[-1])):
            found[-1] = f"{found[-1]} {clause}"
        else:
            found.append(clause)
    return found


def _short(clause: str) -> bool:
    return len(clause.split()) < _FEWEST_WORDS
