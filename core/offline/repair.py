"""Repair of values: the nearest text or number that a schema allows, and examples of regular expressions."""

import math
import re
from fractions import Fraction
from typing import Final

from core.offline.schemas import Schema, fits_format, fits_number, matches
from core.offline.words import shorten_sentence

_FORMATS: Final[dict[str, str]] = {
    "date": r"\d{4}-\d{2}-\d{2}",
    "date-time": r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?:Z|[+-]\d{2}:\d{2})?",
    "time": r"\d{2}:\d{2}(?::\d{2})?",
    "email": r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+",
    "uri": r"https?://[^\s\"'<>)\]]+",
    "uuid": r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}",
}
_SPARES: Final[dict[str, str]] = {
    "date": "1970-01-01",
    "date-time": "1970-01-01T00:00:00+00:00",
    "time": "00:00:00",
    "email": "unknown@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-0000-0000-000000000000",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "hostname": "example.com",
    "duration": "PT0S",
}


def repair_text(text: str, schema: Schema) -> str:
    """Return the text, with the form and length the schema asks for."""
    name = str(schema.get("format") or "")
    if name in _SPARES:
        return _fit_format(text, name)
    least, most = schema.get("minLength", 0), schema.get("maxLength")
    if "pattern" in schema:
        found = _fit_pattern(text, str(schema["pattern"]), least, most)
        if found is not None:
            return found
    if most is not None and len(text) > most:
        text = shorten_sentence(text, most)
    return text if len(text) >= least else _lengthen(text, least)


def repair_number(number: float, schema: Schema, *, whole: bool) -> float:
    """Return the nearest number within bounds and on the step; an integer where one is asked for."""
    step = Fraction(str(schema["multipleOf"])) if schema.get("multipleOf") else None
    if whole:
        step = step if step and step.denominator == 1 else Fraction(step.numerator) if step else Fraction(1)
    low, high = _bounds(schema)
    if step is None:
        return _clamp(number, low, high, schema)
    wanted = Fraction(number) / step
    least = math.ceil(Fraction(low) / step) if low is not None else None
    most = math.floor(Fraction(high) / step) if high is not None else None
    at = round(wanted)
    at = max(at, least) if least is not None else at
    at = min(at, most) if most is not None else at
    for shift in (0, 1, -1):
        value = _number((at + shift) * step, whole=whole)
        if fits_number(value, schema):
            return value
    return _number(at * step, whole=whole)


def _number(value: Fraction, *, whole: bool) -> float:
    return int(value) if whole or value.denominator == 1 else float(value)


def _bounds(schema: Schema) -> tuple[float | None, float | None]:
    lows = [schema[key] for key in ("minimum", "exclusiveMinimum") if key in schema]
    highs = [schema[key] for key in ("maximum", "exclusiveMaximum") if key in schema]
    return max(lows, default=None), min(highs, default=None)


def _clamp(number: float, low: float | None, high: float | None, schema: Schema) -> float:
    candidates: list[float] = [number]
    if low is not None and high is not None:
        candidates += [low, high, low + (high - low) / 2]
    elif low is not None:
        candidates += [low, low + 1, math.nextafter(low, math.inf)]
    elif high is not None:
        candidates += [high, high - 1, math.nextafter(high, -math.inf)]
    return next((value for value in candidates if fits_number(value, schema)), number)


def _fit_format(text: str, name: str) -> str:
    form = _FORMATS.get(name)
    found = re.search(form, text) if form else None
    if found and fits_format(found.group(), name):
        return found.group()
    return _SPARES[name]


def _fit_pattern(text: str, pattern: str, least: int, most: int | None) -> str | None:
    """Return a piece of the text that matches, else an example of the pattern, of the right length."""
    longest = most if most is not None else max(len(text), least, 1_000)
    candidates = [text, *text.split(), *_pieces(text, pattern), example_of(pattern, least)]
    for candidate in candidates:
        if candidate is not None and least <= len(candidate) <= longest and matches(pattern, candidate):
            return candidate
    return None


def _pieces(text: str, pattern: str) -> list[str]:
    bare = pattern.removeprefix("^").removesuffix("$")
    try:
        return [found.group() for found in re.finditer(bare, text[:2_000])][:20]
    except re.error:
        return []


def _lengthen(text: str, least: int) -> str:
    filler = f"{text} " if text.strip() else "- "
    longer = text
    while len(longer) < least:
        longer = f"{longer} {filler}" if longer else filler
    return longer[:least]


_CLASSES: Final = {"d": "0", "w": "a", "s": " ", "D": "a", "W": "-", "S": "a"}
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r"}
_PRINTABLE: Final = "aA0-_ " + "".join(chr(code) for code in range(33, 127))
_MOST_REPEATS: Final = 2_000


def example_of(pattern: str, least: int = 0) -> str | None:
    """Return a string the pattern matches, about ``least`` characters long; ``None`` where none was found."""
    for repeats in (0, 1, least, max(least - len(pattern), 0)):
        writer = _Writer(pattern, min(repeats, _MOST_REPEATS))
        text = writer.alternatives()
        if writer.at_end and len(text) >= least and _matches(pattern, text):
            return text
    return None


def _matches(pattern: str, text: str) -> bool:
    try:
        return re.search(pattern, text) is not None
    except re.error:
        return False


class _Writer:
    """Reads a pattern from left to right and writes an example of it."""

    def __init__(self, pattern: str, repeats: int) -> None:
        self._pattern = pattern
        self._repeats = repeats
        self._at = 0

    @property
    def at_end(self) -> bool:
        return self._at >= len(self._pattern)

    def alternatives(self) -> str:
        """Return the example of the first alternative; the others are skipped."""
        first = self._sequence()
        while self._peek() == "|":
            self._at += 1
            self._sequence()
        return first

    def _peek(self) -> str:
        return self._pattern[self._at : self._at + 1]

    def _take(self) -> str:
        self._at += 1
        return self._pattern[self._at - 1 : self._at]

    def _sequence(self) -> str:
        written = ""
        while self._peek() and self._peek() not in "|)":
            atom = self._atom()
            written += atom * self._count()
        return written

    def _atom(self) -> str:
        character = self._take()
        if character == "(":
            return self._group()
        if character == "[":
            return self._character_class()
        if character == "\\":
            return self._write_escape()
        if character in "^$":
            return ""
        return "a" if character == "." else character

    def _group(self) -> str:
        skipped = False
        if self._peek() == "?":
            opened = re.compile(r"\?(?::|P?<\w+>|[=!]|<[=!])").match(self._pattern, self._at)
            skipped = bool(opened and opened.group()[1:] in {"=", "!", "<=", "<!"})
            self._at = opened.end() if opened else self._at + 1
        inner = self.alternatives()
        if self._peek() == ")":
            self._at += 1
        return "" if skipped else inner

    def _write_escape(self) -> str:
        character = self._take()
        if character in "bBAZ":
            return ""
        return _CLASSES.get(character, _ESCAPES.get(character, character))

    def _character_class(self) -> str:
        start = self._at - 1
        if self._peek() == "^":
            self._at += 1
        if self._peek() == "]":
            self._at += 1
        while self._peek() and self._peek() != "]":
            self._at += 2 if self._peek() == "\\" else 1
        self._at += 1
        try:
            accepted = re.compile(self._pattern[start : self._at])
        except re.error:
            return "a"
        return next((character for character in _PRINTABLE if accepted.match(character)), "a")

    def _count(self) -> int:
        character = self._peek()
        if character not in "*+?{" or not character:
            return 1
        self._at += 1
        if character == "{":
            count = self._braces()
        else:
            count = {"*": self._repeats, "+": max(self._repeats, 1), "?": 0}[character]
        if self._peek() == "?":
            self._at += 1
        return count

    def _braces(self) -> int:
        bounds = re.compile(r"(\d*)(,?)(\d*)\}").match(self._pattern, self._at)
        if not bounds:
            return 1
        self._at = bounds.end()
        least = int(bounds.group(1) or 0)
        if not bounds.group(2):
            return min(least, _MOST_REPEATS)
        most = int(bounds.group(3)) if bounds.group(3) else max(least, self._repeats)
        return min(max(least, min(self._repeats, most)), _MOST_REPEATS)
