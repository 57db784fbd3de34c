"""Valid values for JSON schemas: known values by field name, else the smallest that a schema permits."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

Schema: TypeAlias = Mapping[str, Any]

_MOST_REFERENCES: Final = 32
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
    return _Filler(schema, values).value(schema, "")


def fill_arguments(schema: Schema, values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return arguments for a tool, without unknown optional ones, and the required ones that nobody gave."""
    required = schema.get("required", ())
    missing = [name for name in required if name.endswith(_ONLY_GIVEN) and name not in values]
    return fill({**schema, "type": "object"}, values), missing


@dataclass(frozen=True)
class _Filler:
    """Walks one schema, ``root``, into which references point."""

    root: Schema
    values: Mapping[str, Any]

    def value(self, schema: Any, name: str) -> Any:
        """Return a valid value for a part of the schema."""
        whole = self._resolve(schema)
        if (known := self._find_known(whole, name)) is not None:
            return known
        given = [whole[key] for key in ("const", "default") if key in whole] + whole.get("enum", [])
        if given:
            return given[0]
        if branches := whole.get("anyOf"):
            resolved = [self._resolve(branch) for branch in branches]
            return None if "null" in map(_type_of, resolved) else self.value(branches[0], name)
        return self._build(whole, name)

    def _build(self, whole: Schema, name: str) -> Any:
        match _type_of(whole):
            case "object":
                properties: Schema = whole.get("properties", {})
                names = [*whole.get("required", ()), *(key for key in properties if key in self.values)]
                fields = {key: self.value(properties.get(key, {}), key) for key in names}
                optional = fields.keys() - set(whole.get("required", ()))
                return {key: each for key, each in fields.items() if key not in optional or each is not None}
            case "array":
                return [self.value(whole.get("items", {}), name)] * whole.get("minItems", 0)
            case "integer" | "number" as kind:
                return _number(whole, is_whole=kind == "integer")
            case kind:
                return {"boolean": False, "null": None}.get(kind, _text("", whole))

    def _find_known(self, schema: Any, name: str) -> Any:
        """Return the known value of a field where it fits, cut to the schema's length; else ``None``."""
        whole, value = self._resolve(schema), self.values.get(name)
        if "const" in whole or whole.get("enum"):
            return value if value in whole.get("enum", [whole.get("const")]) else None
        if branches := whole.get("anyOf"):
            return next((v for each in branches if (v := self._find_known(each, name)) is not None), None)
        match _type_of(whole), value:
            case "string", str() if not {"format", "pattern"} & whole.keys():
                return _text(value, whole)
            case ("boolean", bool()):
                return value
        return None

    def _resolve(self, schema: Any) -> Schema:
        current: Schema = schema if isinstance(schema, Mapping) else {}
        for _ in range(_MOST_REFERENCES):
            if "$ref" not in current:
                break
            target: Any = self.root
            for part in str(current["$ref"]).removeprefix("#/").split("/"):
                target = target.get(part, {})
            current = {**target, **{key: value for key, value in current.items() if key != "$ref"}}
        return current


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
