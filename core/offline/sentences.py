"""Sentences: where they begin and end, and how texts are shortened."""

import re
from typing import Final

MAX_SENTENCES: Final = 400

_BREAK: Final = re.compile(r"(?<=[.!?…])[\"'»)\]]*\s+(?=[\"'«(\[]?[A-ZÀ-Ý0-9])|\n+\s*(?:[-*•#]+\s*)?")
_ABBREVIATION: Final = re.compile(
    r"(?:\b(?:e\.g|i\.e|etc|vs|no|dr|mr|mrs|sr|sra|ex|p\.ex)\.)$", re.IGNORECASE
)
_BULLET: Final = re.compile(r"^\s*(?:[-*•#]+\s+)+")


def sentences(text: str) -> list[str]:
    """The sentences of a text; lines and list items count as sentences."""
    found: list[str] = []
    for piece in _BREAK.split(text):
        sentence = " ".join(_BULLET.sub("", piece).split())
        if not sentence:
            continue
        if found and _ABBREVIATION.search(found[-1]):
            found[-1] = f"{found[-1]} {sentence}"
        else:
            found.append(sentence)
        if len(found) >= MAX_SENTENCES:
            break
    return found


def closed(sentence: str) -> str:
    """The sentence with a full stop where it has no end."""
    stripped = sentence.strip().rstrip(",;:")
    return stripped if not stripped or stripped[-1] in ".!?…" else f"{stripped}."


def shortened(text: str, limit: int) -> str:
    """The text in one line, cut between words to at most ``limit`` characters."""
    line = " ".join(text.split())
    if len(line) <= limit:
        return line
    if limit <= 1:
        return line[:limit]
    cut = line[: limit - 1]
    head, space, _ = cut.rpartition(" ")
    kept = head if space and len(head) > limit // 2 else cut
    return f"{kept.rstrip(' ,;:.')}…"


def headline(text: str, limit: int = 80) -> str:
    """The first sentence, without its end, cut to ``limit``."""
    first = next(iter(sentences(text)), "")
    return shortened(first.rstrip(".!…"), limit)
