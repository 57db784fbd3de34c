"""Valid values for JSON schemas: known values by field name, else the smallest that a schema permits."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

Schema: TypeAlias = Mapping[str, Any]

_MOST_REFERENCES: Final = 32
_MOST_DEPTH: Final = 8
_FORMATS: Final[Mapping[str, str]] = {
    "date": "2000-01-01",
    "date-time": "2000-01-01T00:00:00+00:00",
    "time": "00:00:00+00:00",
    "uuid": "00000000-0000-0000-0000-000000000000",
    "email": "unknown@example.com",
    "uri": "https://example.com",
    "ipv4": "0.0.0.0",  # noqa: S104 - a text, not an address to bind to
}
# Texts that nobody may make up: a call that needs one and has none is not made.
_ONLY_GIVEN: Final = ("_id", "_at", "date", "email", "phone", "url", "amount", "stage")


def fill(schema: Schema, values: Mapping[str, Any]) -> Any:
    """Return a value that is valid for the schema.

    Args:
        schema: A JSON schema; references into its ``$defs`` are followed.
        values: Known values by field name; used where they are valid.
    """
    return _Filler(schema, values).value(schema, "", 0)


def fill_arguments(schema: Schema, values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return arguments for a tool, without unknown optional ones, and the required ones that nobody gave."""
    filler = _Filler(schema, values)
    properties: Mapping[str, Any] = schema.get("properties", {})
    required = list(schema.get("required", ()))
    arguments = {name: filler.value(properties.get(name, {}), name, 1) for name in required}
    for name in properties:
        if name not in arguments and name in values:
            known = filler.find_known(properties[name], name)
            arguments |= {} if known is None else {name: known}
    missing = [name for name in required if name.endswith(_ONLY_GIVEN) and name not in values]
    return arguments, missing


class _Filler:
    """Walks one schema.

    Args:
        root: The schema that references point into.
        values: Known values by field name.
    """

    def __init__(self, root: Schema, values: Mapping[str, Any]) -> None:
        self._root = root
        self._values = values

    def value(self, schema: Any, name: str, depth: int) -> Any:
        """Return a valid value for a part of the schema."""
        whole = self._resolve(schema)
        if "const" in whole:
            return whole["const"]
        known = self.find_known(whole, name)
        if known is not None:
            return known
        branches = whole.get("anyOf") or whole.get("oneOf")
        if "default" in whole:
            return whole["default"]
        if whole.get("enum"):
            return whole["enum"][0]
        if branches:
            return self._branch(branches, name, depth)
        return self._build_typed(whole, name, depth)

    def _build_typed(self, schema: Schema, name: str, depth: int) -> Any:
        match _type_of(schema):
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, name, depth)
            case "boolean":
                return False
            case "null":
                return None
            case "integer" | "number" as kind:
                return _number(schema, whole=kind == "integer")
            case _:
                return _text("", schema)

    def find_known(self, schema: Any, name: str) -> Any:
        """Return the known value of a field where it fits, cut to the schema's length; else ``None``."""
        whole, value = self._resolve(schema), self._values.get(name)
        if value is None:
            return None
        if "const" in whole or whole.get("enum"):
            return value if value in whole.get("enum", [whole.get("const")]) else None
        for branch in whole.get("anyOf") or whole.get("oneOf") or ():
            if (fitting := self.find_known(branch, name)) is not None:
                return fitting
        kind = _type_of(whole)
        if (
            isinstance(value, str)
            and kind == "string"
            and not ({"format", "pattern", "anyOf", "oneOf"} & whole.keys())
        ):
            return _text(value, whole)
        if isinstance(value, bool):
            return value if kind == "boolean" else None
        is_number = isinstance(value, int | float) and kind in {"integer", "number"}
        return (
            value
            if is_number and whole.get("minimum", value) <= value <= whole.get("maximum", value)
            else None
        )

    def _resolve(self, schema: Any) -> Schema:
        current: Schema = schema if isinstance(schema, Mapping) else {}
        for _ in range(_MOST_REFERENCES):
            if "$ref" not in current:
                break
            target: Any = self._root
            for part in str(current["$ref"]).removeprefix("#/").split("/"):
                target = target.get(part, {}) if isinstance(target, Mapping) else {}
            current = {**target, **{key: value for key, value in current.items() if key != "$ref"}}
        for part in current.get("allOf", ()):
            current = {
                **self._resolve(part),
                **{key: value for key, value in current.items() if key != "allOf"},
            }
        return current

    def _branch(self, branches: Sequence[Any], name: str, depth: int) -> Any:
        kinds = [_type_of(self._resolve(branch)) for branch in branches]
        if "null" in kinds:
            return None
        deep = depth >= _MOST_DEPTH
        simple = next((at for at, kind in enumerate(kinds) if kind not in {"object", "array"}), 0)
        return self.value(branches[simple if deep else 0], name, depth + 1)

    def _object(self, schema: Schema, depth: int) -> dict[str, Any]:
        properties: Mapping[str, Any] = schema.get("properties", {})
        names = [*schema.get("required", ()), *(name for name in properties if name in self._values)]
        return {name: self.value(properties.get(name, {}), name, depth + 1) for name in dict.fromkeys(names)}

    def _array(self, schema: Schema, name: str, depth: int) -> list[Any]:
        first: Sequence[Any] = schema.get("prefixItems", ())
        items = [self.value(item, name, depth + 1) for item in first]
        while len(items) < schema.get("minItems", 0):
            items.append(self.value(schema.get("items", {}), name, depth + 1))
        return items


def _type_of(schema: Schema) -> str:
    named = schema.get("type")
    if isinstance(named, str):
        return named
    if named:
        return "null" if "null" in named else str(named[0])
    if "properties" in schema:
        return "object"
    return "array" if "items" in schema else "string"


def _number(schema: Schema, *, whole: bool) -> float:
    step = schema.get("multipleOf") or (1 if whole else 0)
    least = schema.get("minimum", schema.get("exclusiveMinimum", min(0, schema.get("maximum", 0))))
    number = math.ceil(least / step) * step if step else float(least)
    if number <= schema.get("exclusiveMinimum", -math.inf):
        number += step or 0.5
    return int(number) if whole else number


def _text(text: str, schema: Schema) -> str:
    if schema.get("format") in _FORMATS:
        return _FORMATS[schema["format"]]
    least, most = schema.get("minLength", 0), schema.get("maxLength", len(text) or 1)
    return text[: schema.get("maxLength", len(text))].ljust(least, "-")[: max(most, least)]
