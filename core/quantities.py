"""Numbers, dates, times and codes in a text, compared whatever notation they are written in.

``1,200``, ``1.200`` and ``1200`` are one number; ``2026-11-03``, ``3 November 2026`` and ``3 de noviembre de
2026`` are one day. What can be read in two ways (``1.250``, ``03/11/2026``) has both readings.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Final

from core.texts import LANGUAGES, MONTH_NUMBERS, name_month

# A number up to this one is a count of things ("two ways") unless a unit or a currency stands beside it.
_MAX_COUNT: Final = 12
_DAYS_OF_MONTH: Final = 31
# A code has at least so many digits: "UTF-8" and "B2B" are words.
_MIN_CODE_DIGITS: Final = 2
_CENTURY: Final = 2000
_HALF_DAY: Final = 12
_GROUP_DIGITS: Final = 3
# What may stand before a number and belongs to it.
_CHARACTERS_BEFORE: Final = 8
_THOUSANDS: Final = ("k", "mil", "thousand")


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number, date, time or code as a text writes it.

    Attributes:
        text: As written, with its currency and unit.
        readings: What it can mean, in one notation.
        is_count: It is a small number without unit or currency.
    """

    text: str
    readings: frozenset[str]
    is_count: bool = False


@dataclass(frozen=True, slots=True)
class _Reading:
    """A quantity, and all that is written where it is written."""

    quantity: Quantity
    index: frozenset[str]


# Abbreviations that are no words of their own in a language we answer in.
_SHORT_MONTHS: Final[Mapping[str, int]] = {
    "jan": 1, "ene": 1, "feb": 2, "fev": 2, "apr": 4, "abr": 4, "jun": 6, "jul": 7, "aug": 8, "sep": 9,
    "sept": 9, "oct": 10, "nov": 11, "dec": 12, "dez": 12, "dic": 12,
}  # fmt: skip
_MONTHS: Final[Mapping[str, int]] = {
    **MONTH_NUMBERS,
    **_SHORT_MONTHS,
    **{name_month(number, each).lower(): number for each in LANGUAGES for number in range(1, 13)},
}
_MONTH: Final = "|".join(sorted(_MONTHS, key=len, reverse=True))
_GROUP: Final = r"[.,'\u00a0\u202f\u2009]"
_END: Final = r"(?!\w)(?![.,]\d)"
_BEGIN: Final = r"(?<!\w)(?<!\d[.,'\u00a0\u202f\u2009])"
_OF: Final = r"(?:de\s+|del\s+|of\s+)?"
_UNIT: Final = r"""
    %|por\s?cento|por\s?ciento|percent|[€£$¥]|USD|EUR|BRL|GBP|reais|real|d[oó]lar(?:es)?|dollars?|euros?|cents?
    |seconds?|secs?|segundos?|minutes?|mins?|minutos?|hours?|hrs?|horas?|h|days?|d[ií]as?|weeks?|semanas?
    |months?|m[eê]s(?:es)?|years?|anos?|años?|[KMGT]B|ms|s
"""


def _compile(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE | re.VERBOSE)


# "INV-2026-1102", "1Z55500142". Quantifiers are possessive or bounded, because customers write these texts.
_CODE: Final = _compile(
    rf"""(?<![\w-])(?:
        (?-i:[A-Z]){{1,6}}[-/]?\d\w*+ | (?=\w*\d)(?=\w*[^\W\d_])\w++
    )(?:[-/.](?=\w*\d)\w++)*+{_END}"""
)
# "4.12.3".
_VERSION: Final = _compile(rf"(?<!\w)v?(?P<version>\d+(?:\.\d+){{2,}}){_END}")
# "2026-11-03", also before a time; "03/11/2026", "03.11.2026"; "03/11".
_ISO_DAY: Final = _compile(r"(?<![\w-])(?P<y>\d{4})-(?P<m>\d{2})-(?P<d>\d{2})(?:(?![\w-])|(?=T\d))")
_NUMERIC_DAY: Final = _compile(
    rf"""(?<![\w/])(?P<a>\d{{1,2}})(?:
        /(?P<b>\d{{1,2}})/(?P<y>\d{{4}}|\d{{2}}) | ([.-])(?P<b2>\d{{1,2}})\4(?P<y2>\d{{4}})
    )(?![\w/]){_END}"""
)
_SHORT_DAY: Final = _compile(rf"(?<![\w/])(?P<a>\d{{2}})/(?P<b>\d{{2}})(?![\w/]){_END}")
# "3 de noviembre de 2026", "3 November"; "November 3, 2026"; "November 2026".
_DAY_MONTH: Final = _compile(
    rf"""{_BEGIN}(?P<d>\d{{1,2}})(?:st|nd|rd|th|[ºª°])?\s+{_OF}(?P<month>{_MONTH})(?!\w)\.?
    (?:,?\s+{_OF}(?P<y>\d{{4}}){_END})?"""
)
_MONTH_DAY: Final = _compile(
    rf"(?<!\w)(?P<month>{_MONTH})\.?\s+(?P<d>\d{{1,2}})(?:st|nd|rd|th)?{_END}(?:,?\s+(?P<y>\d{{4}}){_END})?"
)
_MONTH_YEAR: Final = _compile(rf"(?<!\w)(?P<month>{_MONTH})\.?,?\s+{_OF}(?P<y>\d{{4}}){_END}")
# "15:30", "15h30", "3 p.m.", "15h".
_TIME: Final = _compile(
    r"""(?:(?<![\w.,:])|(?<=\dT))(?P<h>\d{1,2})(?:
        [:h](?P<min>[0-5]\d)(?::[0-5]\d(?:\.\d+)?)?(?:Z|[+-]\d{2}:\d{2})?(?:\s?(?P<half>[ap])(?:m|\.\s?m\.))?(?![\w:])
      | \s?(?P<half2>[ap])(?:m(?!\w)|\.\s?m\.)
      | \s?(?P<hours>h)(?![\w:])
    )"""
)
# "1,200.50", "40 mil", "13th", "10 %".
_NUMBER: Final = _compile(
    rf"""{_BEGIN}(?P<digits>\d{{1,3}}(?:{_GROUP}\d{{3}})+(?:[.,]\d{{1,2}})?|\d+(?:[.,]\d+)?)(?:
        (?P<ordinal>st|nd|rd|th|[ºª°])
      | (?P<scale>\s?(?:k|mil|thousand|mi|million|milh(?:ão|ao|ões|oes)|mill(?:ón|on|ones))|(?-i:M))(?!\w)
    )?(?P<unit>[\s-]?(?:{_UNIT})(?!\w))?{_END}"""
)
_CURRENCY_BEFORE: Final = re.compile(r"(?:(?:R|US)?\$|[€£¥]|\b(?:USD|EUR|BRL|GBP)) ?$")
_DAY_WORD_BEFORE: Final = re.compile(r"\b(?:dia|día|day|el|on|the)\s$", re.IGNORECASE)
_LIST_MARKER: Final = re.compile(r"^[ \t>*_#-]*\d{1,3}[.):](?=[\s*])", re.MULTILINE)
_WORD: Final = re.compile(r"\w+")
_DIGIT_AHEAD: Final = re.compile(r"\w*\d|\w++[-/]\w*\d")
_AFTER_DAY: Final = re.compile(r"\d\dT(?=\d)")
_DIGITS: Final = re.compile(r"\d{3,}")


def find_quantities(text: str) -> list[Quantity]:
    """Return the quantities of a text in order, each part of it read once; list markers are none."""
    text = _LIST_MARKER.sub(lambda marker: " " * len(marker.group()), text)
    found: list[Quantity] = []
    end = 0
    for start in _find_starts(text):
        if start < end:
            continue
        if (first := next(_read_at(text, start), None)) is not None:
            reading, end = first
            found.append(reading.quantity)
    return found


def index_quantities(text: str) -> set[str]:
    """Return everything that a quantity may read if it stands in this text.

    Of a date, that includes its day, its month and its year, which may be written alone.
    """
    index: set[str] = set()
    end = 0
    for start in _find_starts(text):
        if start < end:
            continue
        for reading, stop in _read_at(text, start):
            index |= reading.index
            # What has no space in it is not read in pieces: "11" does not occur in "2026-11-03".
            if not any(map(str.isspace, text[start:stop])):
                end = stop
                break
    return index


def _find_starts(text: str) -> Iterator[int]:
    """Yield where words begin that have digits, precede some, or name a month; and times after a date."""
    for word in _WORD.finditer(text):
        start, written = word.start(), word.group()
        if _DIGIT_AHEAD.match(text, start) or written.lower() in _MONTHS:
            yield start
        if time := _AFTER_DAY.match(written):
            yield start + time.end()


def _read_at(text: str, start: int) -> Iterator[tuple[_Reading, int]]:
    """Yield the readings of what begins at ``start``, the most specific first, each with its end."""
    for pattern, read in _READERS:
        match = pattern.match(text, start)
        if match and (reading := read(match)) is not None:
            yield reading, match.end()


def _build(text: str, readings: set[str], parts: Iterable[str] = (), *, is_count: bool = False) -> _Reading:
    quantity = Quantity(text.strip(), frozenset(readings), is_count)
    return _Reading(quantity, frozenset(readings).union(parts))


def _read_code(match: re.Match[str]) -> _Reading | None:
    code = match.group()
    is_other = _NUMBER.fullmatch(code) or _TIME.fullmatch(code)
    if is_other or sum(map(str.isdigit, code)) < _MIN_CODE_DIGITS:
        return None
    bare = code.casefold().removeprefix("v")
    if bare.replace(".", "", 1).isdecimal():
        return _build(code, {_name_number(Decimal(bare))})
    return _build(code, {f"code:{bare}"}, (_name_number(Decimal(each)) for each in _DIGITS.findall(code)))


def _read_version(match: re.Match[str]) -> _Reading | None:
    version = match["version"]
    # "1.000.000" is grouped, "03.11.2026" is a day.
    if _NUMBER.fullmatch(version) or _NUMERIC_DAY.fullmatch(version):
        return None
    major, minor, *_ = version.split(".")
    parts = (_name_number(Decimal(major)), _name_number(Decimal(f"{major}.{minor}")))
    return _build(match.group(), {f"code:{version}"}, parts)


def _read_iso_day(match: re.Match[str]) -> _Reading | None:
    return _build_day(match.group(), [(int(match["y"]), int(match["m"]), int(match["d"]))])


def _read_numeric_day(match: re.Match[str]) -> _Reading | None:
    first, second = int(match["a"]), int(match["b"] or match["b2"])
    year = int(match["y"] or match["y2"])
    year += _CENTURY if year < 100 else 0  # noqa: PLR2004 - a year of two digits
    return _build_day(match.group(), [(year, second, first), (year, first, second)])


def _read_short_day(match: re.Match[str]) -> _Reading | None:
    first, second = int(match["a"]), int(match["b"])
    return _build_day(match.group(), [(None, second, first), (None, first, second)])


def _read_named_day(match: re.Match[str]) -> _Reading | None:
    year = int(match["y"]) if match["y"] else None
    return _build_day(match.group(), [(year, _MONTHS[match["month"].lower()], int(match["d"]))])


def _build_day(text: str, days: Sequence[tuple[int | None, int, int]]) -> _Reading | None:
    """Return a day with all its readings as (year, month, day); ``None`` if none of them exists."""
    readings: set[str] = set()
    index: set[str] = set()
    for year, month, day in days:
        if not _is_day(year, month, day):
            continue
        name = f"{month:02}-{day:02}"
        index |= {f"day:{name}", f"ordinal:{day}"}
        if year is None:
            readings.add(f"day:{name}")
            index.add(f"any-year:{name}")
        else:
            # The source may name the day without its year.
            readings |= {f"date:{year}-{name}", f"any-year:{name}"}
            index |= {f"date:{year}-{name}", f"month:{year}-{month:02}", _name_number(Decimal(year))}
    return _Reading(Quantity(text.strip(), frozenset(readings)), frozenset(index)) if readings else None


def _is_day(year: int | None, month: int, day: int) -> bool:
    try:
        # 2000 is a leap year: 29 February exists where no year says otherwise.
        date(_CENTURY if year is None else year, month, day)
    except ValueError:
        return False
    return True


def _read_month(match: re.Match[str]) -> _Reading:
    year, month = match["y"], _MONTHS[match["month"].lower()]
    return _build(match.group(), {f"month:{year}-{month:02}"}, [_name_number(Decimal(year))])


def _read_time(match: re.Match[str]) -> _Reading | None:
    hour, minute = int(match["h"]), match["min"] or "00"
    half = (match["half"] or match["half2"] or "").lower()
    parts = {_name_number(Decimal(hour))} if match["hours"] else set()
    if half and 1 <= hour <= _HALF_DAY:
        hour = hour % _HALF_DAY + (_HALF_DAY if half == "p" else 0)
    if hour >= 2 * _HALF_DAY:
        return None
    # "15h" is three in the afternoon, or a duration.
    return _build(match.group(), {f"time:{hour:02}:{minute}"} | parts)


def _read_number(match: re.Match[str]) -> _Reading:
    before = match.string[max(0, match.start() - _CHARACTERS_BEFORE) : match.start()]
    scale = (match["scale"] or "").strip().lower()
    factor = 1 if not scale else 1_000 if scale in _THOUSANDS else 1_000_000
    values = _read_digits(match["digits"])
    readings = {_name_number(value * factor) for value in values}
    number = min(values)
    is_whole = len(values) == 1 and number == int(number)
    is_day = is_whole and 1 <= number <= _DAYS_OF_MONTH
    if is_day and (match["ordinal"] or _DAY_WORD_BEFORE.search(before)):
        readings.add(f"ordinal:{int(number)}")
    currency = _CURRENCY_BEFORE.search(before)
    is_count = is_whole and number <= _MAX_COUNT and not (currency or match["unit"] or scale)
    text = f"{currency.group() if currency else ''}{match.group()}"
    # "40" may be cut from "40 mil".
    return _build(text, readings, map(_name_number, values), is_count=is_count)


def _read_digits(digits: str) -> set[Decimal]:
    """Return what a number can mean: a single point or comma before three digits groups, or is decimal."""
    if digits.isdecimal():
        return {Decimal(digits)}
    digits = re.sub(r"['\u00a0\u202f\u2009]", "", digits)
    separators = [character for character in digits if character in ".,"]
    if not separators:
        return {Decimal(digits)}
    plain = Decimal(digits.replace(",", "").replace(".", ""))
    whole, _, fraction = digits.rpartition(separators[-1])
    decimal = Decimal(f"{whole.replace(',', '').replace('.', '')}.{fraction}")
    if len(separators) > 1:
        return {plain} if len(set(separators)) == 1 else {decimal}
    can_group = len(fraction) == _GROUP_DIGITS and len(whole) <= _GROUP_DIGITS and not whole.startswith("0")
    if not can_group:
        return {decimal}
    # Nobody writes 10 as "10,000".
    return {plain} if not int(fraction) else {plain, decimal}


def _name_number(value: Decimal) -> str:
    text = format(value, "f")
    return f"number:{text.rstrip('0').rstrip('.') if '.' in text else text}"


# The most specific first.
_READERS: Final[Sequence[tuple[re.Pattern[str], Callable[[re.Match[str]], _Reading | None]]]] = (
    (_CODE, _read_code),
    (_VERSION, _read_version),
    (_ISO_DAY, _read_iso_day),
    (_NUMERIC_DAY, _read_numeric_day),
    (_SHORT_DAY, _read_short_day),
    (_DAY_MONTH, _read_named_day),
    (_MONTH_DAY, _read_named_day),
    (_MONTH_YEAR, _read_month),
    (_TIME, _read_time),
    (_NUMBER, _read_number),
)
