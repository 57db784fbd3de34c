"""Filling of a JSON schema: a source provides contents, which are repaired until they are valid."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from core.offline.fields import Field
from core.offline.repair import repair_number, repair_text
from core.offline.schemas import Schema, allows_null, fits, resolve_schema, same, type_of
from core.offline.words import clean

MAX_DEPTH: Final = 8
_MAX_LISTED: Final = 50
# What nobody may make up.
_ONLY_GIVEN: Final = frozenset({"identifier", "email", "url", "phone", "date", "name", "expression"})


class Source(Protocol):
    """Provides contents; each method returns ``None`` if the conversation has nothing for the field."""

    def text(self, field: Field) -> str | None:
        """Return a string for the field."""

    def spare_text(self, field: Field) -> str:
        """Return a string for a required field for which the conversation has none."""

    def number(self, field: Field, low: float | None, high: float | None) -> float | None:
        """Return a number for the field, within its bounds if it can."""

    def flag(self, field: Field) -> bool | None:
        """Return a truth value for the field."""

    def choice(self, field: Field, options: Sequence[Any]) -> int | None:
        """Return which of the options, by position."""

    def items(self, field: Field) -> list[str] | None:
        """Return strings for the items of a list."""


@dataclass(frozen=True, slots=True)
class Filled:
    """A valid value, and whether it comes from the conversation."""

    value: Any
    grounded: bool


class Filler:
    """Fills one schema from one source.

    Args:
        source: Where contents come from.
        root: The schema that references point into.
        sparse: Leave optional properties out where the conversation holds nothing for them.

    Attributes:
        missing: Names of required fields that need a value only the conversation could give, and it does not.
    """

    def __init__(self, source: Source, root: Schema, *, sparse: bool) -> None:
        self._source = source
        self._root = root
        self._sparse = sparse
        self.missing: list[str] = []

    def fill(self) -> Any:
        """Return a value that is valid for the root schema."""
        return self._value(self._root, Field(), 0).value

    def _value(self, schema: Any, field: Field, depth: int) -> Filled:
        whole = resolve_schema(schema, self._root)
        field = replace(
            field,
            description=field.description or clean(str(whole.get("description") or "")),
            format=str(whole.get("format") or ""),
            pattern=str(whole.get("pattern") or ""),
        )
        if "const" in whole:
            return Filled(whole["const"], grounded=True)
        if whole.get("enum"):
            return self._fill_enumeration(whole, field)
        branches = whole.get("anyOf") or whole.get("oneOf")
        filled = (
            self._fill_branch(whole, branches, field, depth)
            if branches
            else self._fill_by_type(whole, field, depth)
        )
        return self._with_default(filled, whole)

    def _with_default(self, filled: Filled, schema: Schema) -> Filled:
        if filled.grounded or "default" not in schema or not fits(schema["default"], schema, self._root):
            return filled
        return Filled(schema["default"], grounded=False)

    def _fill_enumeration(self, schema: Schema, field: Field) -> Filled:
        options = [option for option in schema["enum"] if fits(option, schema, self._root)] or list(
            schema["enum"]
        )
        at = self._source.choice(field, options)
        if at is None:
            default = schema.get("default", options[0])
            return Filled(
                default if any(same(default, option) for option in options) else options[0], grounded=False
            )
        return Filled(options[at], grounded=True)

    def _fill_branch(self, schema: Schema, branches: list[Any], field: Field, depth: int) -> Filled:
        """The value of the first branch that fits the whole schema; ``null`` only if no value is grounded."""
        shared = {
            key: value
            for key, value in schema.items()
            if key not in {"anyOf", "oneOf", "description", "title"}
        }
        spare: Filled | None = None
        missing = len(self.missing)
        for branch in self._order_branches(branches, depth):
            candidate = self._value({**shared, **resolve_schema(branch, self._root)}, field, depth + 1)
            if not fits(candidate.value, schema, self._root):
                continue
            if candidate.grounded:
                return candidate
            spare = spare or candidate
        if allows_null(schema, self._root):
            del self.missing[missing:]
            return Filled(None, grounded=False)
        return spare or self._value({**shared, **resolve_schema(branches[0], self._root)}, field, depth + 1)

    def _order_branches(self, branches: list[Any], depth: int) -> list[Any]:
        kept = [branch for branch in branches if resolve_schema(branch, self._root).get("type") != "null"]
        if depth < MAX_DEPTH:
            return kept
        deep = {"object", "array"}
        return sorted(kept, key=lambda branch: type_of(resolve_schema(branch, self._root)) in deep)

    def _fill_by_type(self, schema: Schema, field: Field, depth: int) -> Filled:
        kinds: dict[str, Callable[[], Filled]] = {
            "object": lambda: self._object(schema, field, depth),
            "array": lambda: self._array(schema, field, depth),
            "boolean": lambda: self._flag(field),
            "integer": lambda: self._number(schema, field, whole=True),
            "number": lambda: self._number(schema, field, whole=False),
            "null": lambda: Filled(None, grounded=False),
        }
        kind = type_of(schema)
        filled = kinds[kind]() if kind in kinds else self._text(schema, field)
        if not filled.grounded and field.name and "type" in schema and allows_null(schema, self._root):
            return Filled(None, grounded=False)
        return filled

    def _text(self, schema: Schema, field: Field) -> Filled:
        text = self._source.text(field)
        candidate = repair_text(text, schema) if text is not None else None
        if candidate is not None and fits(candidate, schema, self._root):
            return Filled(candidate, grounded=True)
        spare = repair_text(self._source.spare_text(field), schema)
        if field.required and field.kind in _ONLY_GIVEN and "default" not in schema:
            self.missing.append(field.name)
        return Filled(spare, grounded=False)

    def _number(self, schema: Schema, field: Field, *, whole: bool) -> Filled:
        low = schema.get("minimum", schema.get("exclusiveMinimum"))
        high = schema.get("maximum", schema.get("exclusiveMaximum"))
        number = self._source.number(field, low, high)
        grounded = number is not None and math.isfinite(number)
        wanted = number if number is not None and grounded else low if low is not None else min(1, high or 1)
        return Filled(repair_number(wanted, schema, whole=whole), grounded=grounded)

    def _flag(self, field: Field) -> Filled:
        flag = self._source.flag(field)
        return Filled(True if flag is None else flag, grounded=flag is not None)

    def _object(self, schema: Schema, field: Field, depth: int) -> Filled:
        required = set(schema.get("required", ()))
        properties = {**dict.fromkeys(schema.get("required", ()), True), **schema.get("properties", {})}
        value: dict[str, Any] = {}
        grounded = False
        ordered = sorted(
            properties,
            key=lambda name: (
                list(schema.get("properties", {})).index(name)
                if name in schema.get("properties", {})
                else len(properties)
            ),
        )
        for name in ordered:
            if name not in required and (
                depth >= MAX_DEPTH or len(value) >= schema.get("maxProperties", 10_000)
            ):
                continue
            inner = self._value(
                properties[name],
                Field(name=name, required=name in required, item=field.item, parent=field.name),
                depth + 1,
            )
            if name in required or inner.grounded or not self._sparse:
                value[name] = inner.value
                grounded = grounded or inner.grounded
        self._complete(value, schema, properties, depth)
        return Filled(value, grounded=grounded or not properties)

    def _complete(
        self, value: dict[str, Any], schema: Schema, properties: dict[str, Any], depth: int
    ) -> None:
        """Add properties until there are as many as must be."""
        least = schema.get("minProperties", 0)
        for name, inner in properties.items():
            if len(value) < least and name not in value:
                value[name] = self._value(inner, Field(name=name, required=False), depth + 1).value
        other = schema.get("additionalProperties", True)
        while other is not False and len(value) < least:
            name = f"field_{len(value) + 1}"
            value[name] = self._value(other, Field(name=name), depth + 1).value

    def _array(self, schema: Schema, field: Field, depth: int) -> Filled:
        least = schema.get("minItems", 0)
        most = min(schema.get("maxItems", _MAX_LISTED), max(least, _MAX_LISTED))
        first = schema.get("prefixItems", [])
        rest = schema.get("items", not first)
        has_texts = depth < MAX_DEPTH and type_of(resolve_schema(rest, self._root)) in {"string", "object"}
        texts = self._source.items(field) if has_texts else None
        if first and "items" not in schema:
            most = min(most, max(len(first), least))
        count = max(least, min(len(first) or len(texts or ()), most))
        values: list[Any] = []
        for at in range(count):
            inner = first[at] if at < len(first) else rest
            item = replace(field, item=at, description="", required=field.required)
            values.append(self._item(inner, item, texts, depth))
        if schema.get("uniqueItems"):
            values = self._distinct(values, schema)
        return Filled(values, grounded=bool(texts) or bool(values and field.required and not self._sparse))

    def _item(self, schema: Any, field: Field, texts: list[str] | None, depth: int) -> Any:
        whole = resolve_schema(schema, self._root)
        is_plain = type_of(whole) == "string" and not whole.keys() & {"enum", "const", "anyOf", "oneOf"}
        at = field.item or 0
        if is_plain and texts and at < len(texts):
            candidate = repair_text(texts[at], whole)
            if fits(candidate, whole, self._root):
                return candidate
        return self._value(schema, field, depth + 1).value

    def _distinct(self, values: list[Any], schema: Schema) -> list[Any]:
        """Return the values without repetitions, varied where too few are left."""
        kept: list[Any] = []
        inner = resolve_schema(schema.get("items", True), self._root)
        for value in values:
            variant = next(
                (each for each in _variants(value, inner) if self._is_new(each, kept, inner)), None
            )
            if not any(same(value, other) for other in kept):
                kept.append(value)
            elif variant is not None and len(kept) < max(schema.get("minItems", 0), 1):
                kept.append(variant)
        return kept

    def _is_new(self, value: Any, kept: list[Any], schema: Schema) -> bool:
        return fits(value, schema, self._root) and not any(same(value, other) for other in kept)


def _variants(value: Any, schema: Schema) -> list[Any]:
    """Return variants of a value, for lists whose items must be unique."""
    if schema.get("enum"):
        return list(schema["enum"])
    if isinstance(value, bool):
        return [True, False]
    if isinstance(value, int | float):
        step = schema.get("multipleOf") or 1
        return [value + step * distance * sign for distance in range(1, _MAX_LISTED) for sign in (1, -1)]
    if isinstance(value, str):
        most = schema.get("maxLength", 10_000)
        numbered = [f"{value[: max(most - len(str(at)), 0)]}{at}" for at in range(2, _MAX_LISTED)]
        return [
            *numbered,
            *(f"{at}" for at in range(_MAX_LISTED)),
            *(chr(code) for code in range(97, 123)),
            "",
        ]
    return []
