"""Valid values for JSON schemas: known values by field name, else the smallest that a schema permits."""

import math
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from langchain_core.utils.json_schema import dereference_refs

Schema: TypeAlias = Mapping[str, Any]

_FORMATS: Final[Mapping[str, str]] = {
    "date": "2000-01-01",
    "date-time": "2000-01-01T00:00:00+00:00",
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
    return _fill(dereference_refs(dict(schema)), "", values)


def fill_arguments(schema: Schema, values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return arguments for a tool, without unknown optional ones, and the required ones that nobody gave."""
    required = schema.get("required", ())
    missing = [name for name in required if name.endswith(_ONLY_GIVEN) and name not in values]
    return fill({**schema, "type": "object"}, values), missing


def _fill(schema: Schema, name: str, values: Mapping[str, Any]) -> Any:
    """Return a valid value for the field of a name."""
    if (known := _find_known(schema, values.get(name))) is not None:
        return known
    given = [schema[key] for key in ("const", "default") if key in schema] + schema.get("enum", [])
    if given:
        return given[0]
    if branches := schema.get("anyOf"):
        return None if "null" in map(_type_of, branches) else _fill(branches[0], name, values)
    return _build(schema, name, values)


def _build(schema: Schema, name: str, values: Mapping[str, Any]) -> Any:
    match _type_of(schema):
        case "object":
            properties: Schema = schema.get("properties", {})
            required = schema.get("required", ())
            names = [*required, *(key for key in properties if key in values and key not in required)]
            fields = {key: _fill(properties.get(key, {}), key, values) for key in names}
            return {key: each for key, each in fields.items() if key in required or each is not None}
        case "array":
            return [_fill(schema.get("items", {}), name, values)] * schema.get("minItems", 0)
        case "integer" | "number" as kind:
            return _number(schema, is_whole=kind == "integer")
        case kind:
            return {"boolean": False, "null": None}.get(kind, _text("", schema))


def _find_known(schema: Schema, value: Any) -> Any:
    """Return a known value where it fits, cut to the schema's length; else ``None``."""
    if "const" in schema or schema.get("enum"):
        return value if value in schema.get("enum", [schema.get("const")]) else None
    if branches := schema.get("anyOf"):
        return next((found for each in branches if (found := _find_known(each, value)) is not None), None)
    match _type_of(schema), value:
        case "string", str() if not {"format", "pattern"} & schema.keys():
            return _text(value, schema)
        case ("boolean", bool()):
            return value
    return None


def _type_of(schema: Schema) -> str:
    named = schema.get("type") or ("object" if "properties" in schema else "string")
    return named if isinstance(named, str) else "null" if "null" in named else str(named[0])


def _number(schema: Schema, *, is_whole: bool) -> float:
    step = schema.get("multipleOf", 1 if is_whole else 0.5)
    least = schema.get("minimum", schema.get("exclusiveMinimum", min(0, schema.get("maximum", 0))))
    number = math.ceil(least / step) * step
    number += step if number <= schema.get("exclusiveMinimum", -math.inf) else 0
    return int(number) if is_whole else number


def _text(text: str, schema: Schema) -> str:
    cut = text[: schema.get("maxLength", len(text))].ljust(schema.get("minLength", 0), "-")
    return _FORMATS.get(schema.get("format", ""), cut)
