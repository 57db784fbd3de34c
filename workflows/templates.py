"""Templates: JSON values whose texts may hold ``{{ expression }}``.

There is nothing but placeholders: no statements, filters or attributes to reach Python by. What a
placeholder gives is data and is never read as a template again.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias
from urllib.parse import quote

from pydantic import JsonValue

from core.errors import StepFailed
from workflows.expressions import Expression, ExpressionFault, Path

OPEN: Final = "{{"
CLOSE: Final = "}}"
LONGEST_RENDERED: Final = 1_000_000
_QUOTES: Final = "'\"`"

_Part: TypeAlias = str | Expression


class Fault(NamedTuple):
    """What is wrong with a template.

    Attributes:
        where: Its place in the value, ``body.items.0``; empty: the value itself.
        message: What is wrong and what to do.
    """

    where: str
    message: str


@dataclass(frozen=True, slots=True)
class Template:
    """A template; whether it is one, :meth:`faults` tells.

    Attributes:
        value: As it was written.
    """

    value: JsonValue

    def faults(self, where: str = "") -> list[Fault]:
        """Everything wrong with it; ``where`` goes before each place."""
        found = []
        for place, text in _texts(self.value, where):
            try:
                _parts(text)
            except ExpressionFault as fault:
                found.append(Fault(place, f"{fault.message} (at character {fault.position + 1})"))
        return found

    def paths(self) -> frozenset[Path]:
        """What its expressions refer to (:meth:`workflows.expressions.Expression.paths`)."""
        return frozenset(
            path
            for _, text in _texts(self.value, "")
            for part in _parts(text)
            if isinstance(part, Expression)
            for path in part.paths()
        )

    def render(self, context: Mapping[str, JsonValue]) -> JsonValue:
        """The value with its placeholders filled in.

        A text that is one placeholder becomes the value itself, of whatever type. In a longer text null is
        nothing, and what is no text is written as JSON.

        Raises:
            StepFailed: An expression cannot be evaluated, or a text would become too long.
        """
        return _rendered(self.value, context)

    def render_address(self, context: Mapping[str, JsonValue]) -> str:
        """A text as an address: each value is one segment of its path or one value of its query.

        Raises:
            StepFailed: As :meth:`render`, and where a value is missing or is none that a segment can have.
        """
        return "".join(
            part if isinstance(part, str) else _segment(part, context) for part in _parts(str(self.value))
        )

    def literal_start(self) -> str:
        """What a text begins with, up to its first placeholder."""
        first = next(iter(_parts(str(self.value))), "")
        return first if isinstance(first, str) else ""


def _texts(value: JsonValue, where: str) -> Iterator[tuple[str, str]]:
    """Every text in a value and its place; the keys of objects are no templates."""
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, list | dict):
        for key, child in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _texts(child, f"{where}.{key}" if where else str(key))


@lru_cache(maxsize=8_192)
def _parts(text: str) -> tuple[_Part, ...]:
    parts: list[_Part] = []
    at = 0
    while (start := text.find(OPEN, at)) >= 0:
        end = _close(text, start + len(OPEN))
        inside = text[start + len(OPEN) : end]
        try:
            expression = Expression.parse(inside.strip())
        except ExpressionFault as fault:
            indent = len(inside) - len(inside.lstrip())
            raise ExpressionFault(
                f"the expression in {OPEN} {CLOSE} {fault.message}",
                start + len(OPEN) + indent + fault.position,
            ) from fault
        parts += [text[at:start], expression]
        at = end + len(CLOSE)
    parts.append(text[at:])
    return tuple(part for part in parts if part != "")


def _close(text: str, start: int) -> int:
    """Where the placeholder's end is: not inside a quoted text, nor where braces of its own are open."""
    depth, quoted, at = 0, "", start
    while at < len(text):
        char = text[at]
        if quoted:
            at += char == "\\"
            quoted = "" if char == quoted else quoted
        elif char in _QUOTES:
            quoted = char
        elif not depth and text.startswith(CLOSE, at):
            return at
        else:
            depth += (char == "{") - (char == "}")
        at += 1
    raise ExpressionFault(f"a {OPEN} has no {CLOSE}", start - len(OPEN))


def _rendered(value: JsonValue, context: Mapping[str, JsonValue]) -> JsonValue:
    if isinstance(value, str):
        return _filled(_parts(value), context)
    if isinstance(value, list):
        return [_rendered(child, context) for child in value]
    if isinstance(value, dict):
        return {key: _rendered(child, context) for key, child in value.items()}
    return value


def _filled(parts: tuple[_Part, ...], context: Mapping[str, JsonValue]) -> JsonValue:
    if len(parts) == 1 and isinstance(parts[0], Expression):
        return parts[0].evaluate(context)
    text = "".join(part if isinstance(part, str) else _text(part.evaluate(context)) for part in parts)
    if len(text) > LONGEST_RENDERED:
        raise StepFailed(
            f"a template gives a text of {len(text):,} characters; the most is {LONGEST_RENDERED:,}"
        )
    return text


def _text(value: JsonValue) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _segment(expression: Expression, context: Mapping[str, JsonValue]) -> str:
    value = expression.evaluate(context)
    if not isinstance(value, str | int | float) or value in ("", ".", ".."):
        raise StepFailed(
            f"{expression.text!r} gives {str(value)[:50]!r}, which cannot be a part of an address"
        )
    return quote(_text(value), safe="")
