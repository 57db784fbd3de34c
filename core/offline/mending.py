"""Mending: the nearest text or number that a schema's bounds allow."""

import math
import re
from fractions import Fraction
from typing import Final

from core.offline.patterns import example_of
from core.offline.schemas import Schema, fits_format, fits_number, matches
from core.offline.sentences import shortened

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


def mended_text(text: str, schema: Schema) -> str:
    """The text, with the form and length the schema asks for."""
    name = str(schema.get("format") or "")
    if name in _SPARES:
        return _formatted(text, name)
    least, most = schema.get("minLength", 0), schema.get("maxLength")
    if "pattern" in schema:
        found = _patterned(text, str(schema["pattern"]), least, most)
        if found is not None:
            return found
    if most is not None and len(text) > most:
        text = shortened(text, most)
    return text if len(text) >= least else _lengthened(text, least)


def mended_number(number: float, schema: Schema, *, whole: bool) -> float:
    """The nearest number within bounds and on the step; an integer where one is asked for."""
    step = Fraction(str(schema["multipleOf"])) if schema.get("multipleOf") else None
    if whole:
        step = step if step and step.denominator == 1 else Fraction(step.numerator) if step else Fraction(1)
    low, high = _bounds(schema)
    if step is None:
        return _between(number, low, high, schema)
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


def _between(number: float, low: float | None, high: float | None, schema: Schema) -> float:
    candidates: list[float] = [number]
    if low is not None and high is not None:
        candidates += [low, high, low + (high - low) / 2]
    elif low is not None:
        candidates += [low, low + 1, math.nextafter(low, math.inf)]
    elif high is not None:
        candidates += [high, high - 1, math.nextafter(high, -math.inf)]
    return next((value for value in candidates if fits_number(value, schema)), number)


def _formatted(text: str, name: str) -> str:
    form = _FORMATS.get(name)
    found = re.search(form, text) if form else None
    if found and fits_format(found.group(), name):
        return found.group()
    return _SPARES[name]


def _patterned(text: str, pattern: str, least: int, most: int | None) -> str | None:
    """A piece of the text that matches, else an example of the pattern, of the right length."""
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


def _lengthened(text: str, least: int) -> str:
    filler = f"{text} " if text.strip() else "- "
    longer = text
    while len(longer) < least:
        longer = f"{longer} {filler}" if longer else filler
    return longer[:least]
