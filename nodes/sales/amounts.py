"""Amounts of money in a text."""

import re
from collections.abc import Iterator, Mapping

_NUMBER = r"\d{1,3}(?:[.,' \u00a0]\d{3})+(?:[.,]\d{1,2})?(?!\d)|\d+(?:[.,]\d{1,2})?(?!\d)"
_SIGNS: Mapping[str, str] = {"EUR": "€", "USD": r"(?:US)?\$", "BRL": r"R\$", "GBP": "£", "CAD": r"(?:CA?)?\$"}
# A price may be said for a month where the deal is worth years of it.
MONTHS = (1, 12, 24, 36)
_CENTS = 2
_HALF_A_CENT = 0.005


def amounts(text: str, currency: str) -> set[float]:
    """The numbers that stand beside the currency's code or sign.

    Args:
        text: English or Portuguese: ``1,798.00`` and ``1.798,00`` are the same.
        currency: ISO 4217 code.
    """
    mark = rf"(?:{re.escape(currency)}|{_SIGNS[currency]})" if currency in _SIGNS else re.escape(currency)
    beside = re.compile(
        rf"{mark}\s*(?P<after>{_NUMBER})|(?<![\d.,])(?P<before>{_NUMBER})\s*{mark}", re.IGNORECASE
    )
    return {_value(found["after"] or found["before"]) for found in beside.finditer(text)}


def says(text: str, value: float, currency: str) -> bool:
    """Whether the text names the value, as a whole or for a month."""
    named: Iterator[float] = (amount * months for amount in amounts(text, currency) for months in MONTHS)
    return any(abs(each - value) < _HALF_A_CENT for each in named)


def _value(number: str) -> float:
    """The last separator is the decimal one when at most two digits follow it."""
    head, _, tail = re.sub(r"[' \u00a0]", ",", number).replace(".", ",").rpartition(",")
    if head and len(tail) <= _CENTS:
        return float(f"{head.replace(',', '')}.{tail}")
    return float(f"{head}{tail}".replace(",", ""))
