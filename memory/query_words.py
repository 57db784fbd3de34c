"""The choice of retrievers by the words of a question, on top of the weights of its strategy.

It only raises or lowers weights, so a rule that misjudges a question costs some order and hides nothing.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from core.memory import Strategy
from core.texts import normalise_text

# A code must match exactly; what only means something similar is less likely to be asked for.
CODE_TRIGRAM: Final = 1.0
CODE_VECTOR_SHARE: Final = 0.5
RELATION_GRAPH: Final = 1.0
PERIOD_TEMPORAL: Final = 1.0

# Letters and digits in one word, an address, a number after # or "error", a long number, or a version.
_CODE: Final = re.compile(
    r"(?<![\w-])(?=[a-z]*-?\d|\d+[a-z])(?=[\w-]*[a-z])[a-z0-9]+(?:-[a-z0-9]+)*(?![\w-])"
    r"|[\w.+-]+@[\w.-]+\w|#\d+|\b(?:erro?r?|code|codigo) (?:n[o.]? ?)?\d{2,}|\b\d{5,}\b"
    r"|\bv?\d+\.\d+\.\d+\b"
)
_NO_CODE: Final = re.compile(r"\d+(?:st|nd|rd|th|h|am|pm|k|kg|km|mil)|\d+-[a-z]+|[a-z]+-\d{1,2}")
# English, Portuguese and Spanish, without accents.
_RELATION: Final = re.compile(
    r"\bwho (?:decides|owns|manages|leads|approves|signs)\b"
    r"|\bwho is (?:the |their |his |her )?(?:boss|owner|manager|in charge|responsible)\b"
    r"|\breports? to\b|\bwork(?:s|ing)? (?:at|for|with)\b|\bassigned to\b|\brelated to\b"
    r"|\bquem (?:decide|manda|aprova|assina|cuida|e [oa] (?:responsavel|don[oa]|chefe))\b"
    r"|\bresponde a\b|\btrabalha (?:na|no|em|com|para)\b"
    r"|\bquien (?:decide|manda|aprueba|firma|es (?:el|la) (?:responsable|jefe|jefa))\b"
    r"|\btrabaja (?:en|con|para)\b"
)


@dataclass(frozen=True, slots=True)
class Period:
    """A period in UTC: from ``since`` until before ``until``."""

    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class RetrieverChoice:
    """The weights for a question, the period that it names, and why weights differ from the strategy's."""

    weights: Strategy
    period: Period | None = None
    reasons: tuple[str, ...] = ()


def choose_retrievers(query: str, weights: Strategy, now: datetime) -> RetrieverChoice:
    """Choose the weights for a question: lexical for codes, graph for relations, temporal for periods.

    Args:
        query: The question.
        weights: The strategy's weights; a retriever of weight 0 stays off, except the temporal one.
        now: The time from which "last month" is counted.
    """
    text = normalise_text(query)
    reasons = []
    if weights.trigram > 0 and (code := _find_code(text)):
        weights = replace(
            weights, trigram=max(weights.trigram, CODE_TRIGRAM), vector=weights.vector * CODE_VECTOR_SHARE
        )
        reasons.append(f"lexical: the question names {code!r}")
    if weights.graph > 0 and (relation := _RELATION.search(text)):
        weights = replace(weights, graph=max(weights.graph, RELATION_GRAPH))
        reasons.append(f"graph: the question asks for a relation ({relation.group()!r})")
    words, period = find_period(text, now)
    if period:
        weights = replace(weights, temporal=PERIOD_TEMPORAL)
        days = f"{period.since:%Y-%m-%d} to {period.until - timedelta(days=1):%Y-%m-%d}"
        reasons.append(f"temporal: the question says {words!r} ({days})")
    return RetrieverChoice(weights, period, tuple(reasons))


def _find_code(text: str) -> str | None:
    found = (match.group() for match in _CODE.finditer(text))
    return next((code for code in found if not _NO_CODE.fullmatch(code)), None)


def _start_of_month(day: datetime, months: int = 0) -> datetime:
    index = day.year * 12 + day.month - 1 + months
    return day.replace(year=index // 12, month=index % 12 + 1, day=1)


def _monday(day: datetime, weeks: int = 0) -> datetime:
    return day - timedelta(days=day.weekday()) + timedelta(weeks=weeks)


def _start_of_year(day: datetime, years: int = 0) -> datetime:
    return day.replace(year=day.year + years, month=1, day=1)


# The words, and when the period begins and ends, given the start of today. "Today" is left out: the newest
# messages are included anyway.
_PERIODS: Final[tuple[tuple[re.Pattern[str], Callable[[datetime], tuple[datetime, datetime]]], ...]] = tuple(
    (re.compile(rf"\b(?:{words})\b"), bounds)
    for words, bounds in (
        ("yesterday|ontem|ayer", lambda day: (day - timedelta(days=1), day)),
        (
            "last week|semana passada|ultima semana|semana pasada",
            lambda day: (_monday(day, -1), _monday(day)),
        ),
        ("this week|(?:n?est?a|n?essa) semana", lambda day: (_monday(day), _monday(day, 1))),
        (
            "last month|mes passado|ultimo mes|mes pasado",
            lambda day: (_start_of_month(day, -1), _start_of_month(day)),
        ),
        ("this month|(?:n?este|n?esse) mes", lambda day: (_start_of_month(day), _start_of_month(day, 1))),
        (
            "last year|ano passado|ano pasado|ultimo ano",
            lambda day: (_start_of_year(day, -1), _start_of_year(day)),
        ),
        ("this year|(?:n?este|n?esse) ano", lambda day: (_start_of_year(day), _start_of_year(day, 1))),
    )
)


def find_period(text: str, now: datetime) -> tuple[str, Period | None]:
    """Return the words by which a text names a period, and the period; weeks begin on Monday.

    Args:
        text: Without accents, in lower case.
        now: The time from which it is counted.
    """
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    for pattern, bounds in _PERIODS:
        if found := pattern.search(text):
            return found.group(), Period(*bounds(today))
    return "", None
