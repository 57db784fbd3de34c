"""The choice of a note's type by its words, for callers that name none."""

import re
from dataclasses import dataclass
from typing import Final

from core.memory.values import NoteType
from core.texts import normalise_text


@dataclass(frozen=True, slots=True)
class NoteTypeChoice:
    """A type for a note, and the reason in a sentence."""

    type: NoteType
    reason: str


# The first rule whose words begin a word of the note decides: first who needs it, then how long it is useful.
# English, Portuguese and Spanish, without accents.
_RULES: Final[tuple[tuple[NoteType, str, str], ...]] = (
    (
        "shared",
        "other agents need it: it speaks of a colleague, a hand-over or a promise",
        (
            r"hand(?:ed|ing)? ?-?over|colleague|team\b|next agent|whoever|everyone|all agents|promis|escalat|"
            r"equipe|colega|equipo|companer|transfer|avis(?:ar|e|em)\b|promet|compromet|combinamos|acordamos|todos\b"
        ),
    ),
    (
        "long_term",
        "it stays useful for weeks: it says what this contact prefers or always does",
        (
            r"prefer|always|never\b|usually|likes?\b|dislikes?\b|allerg|wants? to be (?:called|addressed)|"
            r"sempre\b|nunca\b|costuma|gosta|siempre\b|suele|gusta\b|alergi"
        ),
    ),
    (
        "short_term",
        "it is useful for minutes: it says what happens at this moment",
        (
            r"right now|at the moment|just a (?:moment|minute)|on hold|is typing|waiting on the line|"
            r"neste momento|agora mesmo|um (?:momento|minuto)|na linha|en este momento|ahora mismo|"
            r"un (?:momento|minuto)|en (?:la )?linea"
        ),
    ),
)
_PATTERNS: Final = tuple((kind, reason, re.compile(rf"\b(?:{words})")) for kind, reason, words in _RULES)
_OTHERWISE: Final = NoteTypeChoice(
    "working", "it is about the case in work: no word says that others need it, or for how long it is useful"
)


def choose_note_type(text: str) -> NoteTypeChoice:
    """Choose how long a note is kept and who sees it, by who needs it and how long it is useful."""
    plain = normalise_text(text)
    for kind, reason, pattern in _PATTERNS:
        if found := pattern.search(plain):
            return NoteTypeChoice(kind, f"{reason} ({found.group()!r})")
    return _OTHERWISE
