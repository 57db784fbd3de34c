"""Kinds of fields that definitions have, checked where they are read."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeAlias, get_args

from pydantic import AfterValidator, BaseModel, Field, JsonValue, StringConstraints

from workflows.expressions import LONGEST, Expression, Path
from workflows.templates import Template

LONGEST_TEMPLATE: Final = 20_000
MOST_VALUES: Final = 2_000
DEEPEST: Final = 20


@dataclass(frozen=True, slots=True)
class Holds:
    """Marks a field that refers to the context."""

    kind: str


def _expression(text: str) -> str:
    # Its fault is a ValueError, which pydantic reports with the field's place.
    Expression.parse(text)
    return text


def _template(value: Any) -> Any:
    _require_bounded(value)
    faults = Template(value).faults()
    if faults:
        raise ValueError("; ".join(f"{fault.where}: {fault.message}".lstrip(": ") for fault in faults))
    return value


def _require_bounded(value: JsonValue) -> None:
    level: list[JsonValue] = [value]
    values = characters = depth = 0
    while level:
        depth += 1
        values += len(level)
        characters += sum(len(one) for one in level if isinstance(one, str))
        if depth > DEEPEST or values > MOST_VALUES or characters > LONGEST_TEMPLATE:
            raise ValueError(
                f"has more than {LONGEST_TEMPLATE} characters, {MOST_VALUES} values or {DEEPEST} levels"
            )
        level = [child for one in level for child in _children(one)]


def _children(value: JsonValue) -> list[JsonValue]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


ExpressionText: TypeAlias = Annotated[
    str, StringConstraints(min_length=1, max_length=LONGEST), AfterValidator(_expression), Holds("expression")
]
TemplateText: TypeAlias = Annotated[
    str, StringConstraints(max_length=LONGEST_TEMPLATE), AfterValidator(_template), Holds("template")
]
TemplateJson: TypeAlias = Annotated[JsonValue, AfterValidator(_template), Holds("template")]
TemplateMap: TypeAlias = Annotated[
    dict[Annotated[str, StringConstraints(min_length=1, max_length=200)], JsonValue],
    Field(max_length=50),
    AfterValidator(_template),
    Holds("template"),
]


def _metadata(annotation: Any) -> tuple[Any, ...]:
    return getattr(annotation, "__metadata__", ())


def references(model: BaseModel) -> Iterator[tuple[str, Path]]:
    """Each field of a model that refers to the context, and what it refers to; not those of models inside."""
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        # Those of a field that may be null are in the union's members.
        marks = [*field.metadata, *(mark for one in get_args(field.annotation) for mark in _metadata(one))]
        for mark in marks:
            if isinstance(mark, Holds) and value not in (None, ""):
                read = Expression.parse(value) if mark.kind == "expression" else Template(value)
                yield from ((name, path) for path in sorted(read.paths()))
