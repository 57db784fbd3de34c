"""JSON schemas: references resolved, ``allOf`` merged, and whether a value fits."""

import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from typing import Any, Final, TypeAlias
from uuid import UUID

Schema: TypeAlias = Mapping[str, Any]

MAX_REFERENCES: Final = 32
_LARGEST: Final = ("minLength", "minimum", "exclusiveMinimum", "minItems", "minProperties")
_LEAST: Final = ("maxLength", "maximum", "exclusiveMaximum", "maxItems", "maxProperties")
_TYPES: Final[dict[str, type | tuple[type, ...]]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
    "null": type(None),
}


def resolve_schema(schema: Any, root: Schema) -> Schema:
    """Return the schema with its reference followed and its ``allOf`` merged in; ``True`` becomes ``{}``."""
    current: Schema = schema if isinstance(schema, Mapping) else {}
    for _ in range(MAX_REFERENCES):
        if "$ref" not in current:
            break
        rest = {key: value for key, value in current.items() if key != "$ref"}
        current = merge_schemas(_target(str(current["$ref"]), root), rest)
    parts = current.get("allOf")
    if not parts:
        return current
    whole: Schema = {key: value for key, value in current.items() if key != "allOf"}
    for part in parts:
        whole = merge_schemas(resolve_schema(part, root), whole)
    return whole


def merge_schemas(base: Schema, over: Schema) -> Schema:
    """Both schemas at once: bounds tighten, properties and requirements add up, else ``over`` stands."""
    result = {**base, **over}
    for key in base.keys() & over.keys():
        if key in _LARGEST:
            result[key] = max(base[key], over[key])
        elif key in _LEAST:
            result[key] = min(base[key], over[key])
        elif key in {"properties", "$defs"}:
            result[key] = {**base[key], **over[key]}
        elif key == "required":
            result[key] = list(dict.fromkeys([*base[key], *over[key]]))
        elif key == "enum":
            result[key] = [value for value in base[key] if value in over[key]]
    return result


def type_of(schema: Schema) -> str:
    """Return the type that a value should have, inferred from the other keywords if none is named."""
    named = schema.get("type")
    if isinstance(named, str):
        return named
    if isinstance(named, Sequence) and named:
        return next((str(name) for name in named if name != "null"), "null")
    if "properties" in schema or "minProperties" in schema:
        return "object"
    if "items" in schema or "prefixItems" in schema:
        return "array"
    if any(
        key in schema for key in ("minimum", "maximum", "multipleOf", "exclusiveMinimum", "exclusiveMaximum")
    ):
        return "number"
    return "string"


def allows_null(schema: Schema, root: Schema) -> bool:
    """Return whether ``null`` fits."""
    return fits(None, schema, root)


def fits(value: Any, schema: Any, root: Schema) -> bool:
    """Return whether the value is valid by the keywords that tools and replies use; others are ignored."""
    if isinstance(schema, bool):
        return schema
    whole = resolve_schema(schema, root)
    return (
        _fits_type(value, whole)
        and _fits_values(value, whole)
        and _fits_branches(value, whole, root)
        and (not isinstance(value, str) or _fits_text(value, whole))
        and (isinstance(value, bool) or not isinstance(value, int | float) or fits_number(value, whole))
        and (not isinstance(value, list) or _fits_items(value, whole, root))
        and (not isinstance(value, dict) or _fits_properties(value, whole, root))
    )


def fits_number(value: float, schema: Schema) -> bool:
    """Return whether a number keeps its bounds and step."""
    step = schema.get("multipleOf")
    return (
        ("minimum" not in schema or value >= schema["minimum"])
        and ("maximum" not in schema or value <= schema["maximum"])
        and ("exclusiveMinimum" not in schema or value > schema["exclusiveMinimum"])
        and ("exclusiveMaximum" not in schema or value < schema["exclusiveMaximum"])
        and (not step or (value / step) == int(value / step))
    )


def fits_format(text: str, name: str) -> bool:
    """Return whether the text has a date, time or UUID format; other formats are taken to hold."""
    readers = {
        "date": date.fromisoformat,
        "date-time": datetime.fromisoformat,
        "time": time.fromisoformat,
        "uuid": UUID,
    }
    if name not in readers:
        return True
    try:
        readers[name](text)
    except ValueError:
        return False
    return True


def _target(reference: str, root: Schema) -> Schema:
    found: Any = root
    for part in reference.removeprefix("#").strip("/").split("/"):
        if part:
            found = (
                found.get(part.replace("~1", "/").replace("~0", "~"), {})
                if isinstance(found, Mapping)
                else {}
            )
    return found if isinstance(found, Mapping) else {}


def same(one: Any, other: Any) -> bool:
    """JSON equality: ``True`` is not ``1``."""
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _fits_type(value: Any, schema: Schema) -> bool:
    named = schema.get("type")
    names = [named] if isinstance(named, str) else list(named or [])
    return not names or any(_is_a(value, name) for name in names)


def _is_a(value: Any, name: str) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    if name == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES.get(name, object))


def _fits_values(value: Any, schema: Schema) -> bool:
    if "const" in schema and not same(value, schema["const"]):
        return False
    return "enum" not in schema or any(same(value, option) for option in schema["enum"])


def _fits_branches(value: Any, schema: Schema, root: Schema) -> bool:
    if "anyOf" in schema and not any(fits(value, branch, root) for branch in schema["anyOf"]):
        return False
    if "oneOf" in schema and sum(fits(value, branch, root) for branch in schema["oneOf"]) != 1:
        return False
    return "not" not in schema or not fits(value, schema["not"], root)


def _fits_text(text: str, schema: Schema) -> bool:
    return (
        schema.get("minLength", 0) <= len(text) <= schema.get("maxLength", len(text))
        and ("pattern" not in schema or matches(schema["pattern"], text))
        and fits_format(text, schema.get("format", ""))
    )


def matches(pattern: str, text: str) -> bool:
    """Return whether the pattern is found in the text; one Python cannot read is taken to be."""
    try:
        return re.search(pattern, text) is not None
    except re.error:
        return True


def _fits_items(items: list[Any], schema: Schema, root: Schema) -> bool:
    if not schema.get("minItems", 0) <= len(items) <= schema.get("maxItems", len(items)):
        return False
    if schema.get("uniqueItems") and any(
        same(one, other) for at, one in enumerate(items) for other in items[:at]
    ):
        return False
    first = schema.get("prefixItems", [])
    rest = schema.get("items", True)
    return all(fits(item, first[at] if at < len(first) else rest, root) for at, item in enumerate(items))


def _fits_properties(value: dict[str, Any], schema: Schema, root: Schema) -> bool:
    properties = schema.get("properties", {})
    other = schema.get("additionalProperties", True)
    return (
        all(name in value for name in schema.get("required", ()))
        and schema.get("minProperties", 0) <= len(value) <= schema.get("maxProperties", len(value))
        and all(fits(inner, properties.get(name, other), root) for name, inner in value.items())
    )
