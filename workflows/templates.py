"""Templates: JSON values whose texts may hold ``{{ expression }}``, and field types that hold them.

A template consists of placeholders only: there are no statements, filters or attributes through which
Python could be reached. A rendered value is data and is never parsed as a template again.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Final, Literal, TypeAlias, get_args
from urllib.parse import quote

from pydantic import AfterValidator, BaseModel, Field, JsonValue, StringConstraints

from core.errors import StepFailed
from workflows.expressions import MAX_EXPRESSION_LENGTH, Expression, InvalidExpression, Path
from workflows.json_values import iter_levels

OPEN: Final = "{{"
CLOSE: Final = "}}"
MAX_TEMPLATE_LENGTH: Final = 20_000
MAX_TEMPLATE_VALUES: Final = 2_000
MAX_TEMPLATE_DEPTH: Final = 20
MAX_RENDERED_LENGTH: Final = 1_000_000
_QUOTES: Final = "'\"`"

_Part: TypeAlias = str | Expression


@dataclass(frozen=True, slots=True)
class Template:
    """A JSON value with placeholders; :meth:`list_errors` tells whether it is valid.

    Attributes:
        value: The template as it was written.
    """

    value: JsonValue

    def list_errors(self) -> list[str]:
        """Return every error, each with its place in the value, such as ``body.items.0``."""
        errors = []
        for place, text in _iter_texts(self.value, ""):
            try:
                _split(text)
            except InvalidExpression as error:
                where = f"{place}: " if place else ""
                errors.append(f"{where}{error.message} (at character {error.position + 1})")
        return errors

    def list_paths(self) -> frozenset[Path]:
        """Return the paths its expressions read (:meth:`workflows.expressions.Expression.list_paths`)."""
        return frozenset(
            path
            for _, text in _iter_texts(self.value, "")
            for part in _split(text)
            if isinstance(part, Expression)
            for path in part.list_paths()
        )

    def render(self, context: Mapping[str, JsonValue]) -> JsonValue:
        """Return the value with its placeholders filled in.

        A text that is a single placeholder becomes the value itself, of any type. In a longer text, null
        becomes nothing, and other values that are not texts are written as JSON.

        Raises:
            StepFailed: An expression cannot be evaluated, or a text would become too long.
        """
        return _render(self.value, context)

    def render_address(self, context: Mapping[str, JsonValue]) -> str:
        """Return a text as a URL, in which each value is one path segment or one value of the query.

        Raises:
            StepFailed: An expression cannot be evaluated, or its value cannot be a segment.
        """
        return "".join(
            part if isinstance(part, str) else _render_segment(part, context)
            for part in _split(str(self.value))
        )

    def find_literal_start(self) -> str:
        """Return the beginning of a text up to its first placeholder."""
        first = next(iter(_split(str(self.value))), "")
        return first if isinstance(first, str) else ""


def _iter_texts(value: JsonValue, place: str) -> Iterator[tuple[str, str]]:
    """Yield every text in a value with its place; keys of objects are not templates."""
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, list | dict):
        for key, child in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _iter_texts(child, f"{place}.{key}" if place else str(key))


@lru_cache(maxsize=8_192)
def _split(text: str) -> tuple[_Part, ...]:
    """Split a text into literal texts and the expressions between them."""
    parts: list[_Part] = []
    at = 0
    while (start := text.find(OPEN, at)) >= 0:
        end = _find_close(text, start + len(OPEN))
        placeholder = text[start + len(OPEN) : end]
        try:
            expression = Expression.parse(placeholder.strip())
        except InvalidExpression as error:
            indent = len(placeholder) - len(placeholder.lstrip())
            raise InvalidExpression(
                f"the expression in {OPEN} {CLOSE} {error.message}",
                start + len(OPEN) + indent + error.position,
            ) from error
        parts += [text[at:start], expression]
        at = end + len(CLOSE)
    parts.append(text[at:])
    return tuple(part for part in parts if part != "")


def _find_close(text: str, start: int) -> int:
    """Return where the placeholder ends, ignoring braces in quoted texts and braces of the expression."""
    depth, quote_character, at = 0, "", start
    while at < len(text):
        character = text[at]
        if quote_character:
            at += character == "\\"
            quote_character = "" if character == quote_character else quote_character
        elif character in _QUOTES:
            quote_character = character
        elif not depth and text.startswith(CLOSE, at):
            return at
        else:
            depth += (character == "{") - (character == "}")
        at += 1
    raise InvalidExpression(f"a {OPEN} has no {CLOSE}", start - len(OPEN))


def _render(value: JsonValue, context: Mapping[str, JsonValue]) -> JsonValue:
    if isinstance(value, str):
        return _render_text(_split(value), context)
    if isinstance(value, list):
        return [_render(child, context) for child in value]
    if isinstance(value, dict):
        return {key: _render(child, context) for key, child in value.items()}
    return value


def _render_text(parts: tuple[_Part, ...], context: Mapping[str, JsonValue]) -> JsonValue:
    if len(parts) == 1 and isinstance(parts[0], Expression):
        return parts[0].evaluate(context)
    text = "".join(part if isinstance(part, str) else _to_text(part.evaluate(context)) for part in parts)
    if len(text) > MAX_RENDERED_LENGTH:
        raise StepFailed(f"a template gives a text of more than {MAX_RENDERED_LENGTH:,} characters")
    return text


def _render_segment(expression: Expression, context: Mapping[str, JsonValue]) -> str:
    value = expression.evaluate(context)
    if not isinstance(value, str | int | float) or value in ("", ".", ".."):
        raise StepFailed(f"{expression.text!r} gives {str(value)[:50]!r}, which cannot be a URL segment")
    return quote(_to_text(value), safe="")


def _to_text(value: JsonValue) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class ReadsContext:
    """Annotation that marks a field whose value reads the context."""

    kind: Literal["expression", "template"]


def list_field_paths(model: BaseModel) -> list[tuple[str, Path]]:
    """Return each field of a model that reads the context with each path it reads, without nested models."""
    paths: list[tuple[str, Path]] = []
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        # The annotations of an optional field are on the members of its union.
        marks = [
            *field.metadata,
            *(mark for member in get_args(field.annotation) for mark in getattr(member, "__metadata__", ())),
        ]
        for mark in marks:
            if isinstance(mark, ReadsContext) and value not in (None, ""):
                parsed = Expression.parse(value) if mark.kind == "expression" else Template(value)
                paths += [(name, path) for path in sorted(parsed.list_paths())]
    return paths


def _check_expression(text: str) -> str:
    # InvalidExpression is a ValueError, which pydantic reports with the place of the field.
    Expression.parse(text)
    return text


def _check_template(value: Any) -> Any:
    values = characters = 0
    for depth, level in enumerate(iter_levels(value), start=1):
        values += len(level)
        characters += sum(len(text) for text in level if isinstance(text, str))
        if depth > MAX_TEMPLATE_DEPTH or values > MAX_TEMPLATE_VALUES or characters > MAX_TEMPLATE_LENGTH:
            raise ValueError(
                f"has more than {MAX_TEMPLATE_LENGTH} characters, {MAX_TEMPLATE_VALUES} values or "
                f"{MAX_TEMPLATE_DEPTH} levels"
            )
    if errors := Template(value).list_errors():
        raise ValueError("; ".join(errors))
    return value


ExpressionText: TypeAlias = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_EXPRESSION_LENGTH),
    AfterValidator(_check_expression),
    ReadsContext("expression"),
]
TemplateText: TypeAlias = Annotated[
    str,
    StringConstraints(max_length=MAX_TEMPLATE_LENGTH),
    AfterValidator(_check_template),
    ReadsContext("template"),
]
TemplateJson: TypeAlias = Annotated[JsonValue, AfterValidator(_check_template), ReadsContext("template")]
TemplateMap: TypeAlias = Annotated[
    dict[Annotated[str, StringConstraints(min_length=1, max_length=200)], JsonValue],
    Field(max_length=50),
    AfterValidator(_check_template),
    ReadsContext("template"),
]
