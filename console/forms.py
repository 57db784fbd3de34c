"""Forms drawn from JSON schemas."""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from nicegui import ui

from console.api import ApiError

# Texts that may be longer are written in a field of several lines.
_LINE_CHARACTERS: Final = 1_000


class SchemaForm:
    """A form with a field for each property of an object schema; optional ones are folded.

    Args:
        schema: The JSON schema of an object.
        values: What the fields hold at first.
    """

    def __init__(self, schema: Mapping[str, Any], values: Mapping[str, Any] | None = None) -> None:
        self._read: dict[str, Callable[[], Any]] = {}
        properties, required = schema.get("properties", {}), set(schema.get("required", ()))
        optional = [name for name in properties if name not in required]
        for name in properties:
            if name in required:
                self._add(name, properties[name], (values or {}).get(name))
        if optional:
            with ui.expansion("More fields").classes("w-full").props("dense"):
                for name in optional:
                    self._add(name, properties[name], (values or {}).get(name))

    def read(self) -> dict[str, Any]:
        """Return what was entered; fields that were left as they were are left out.

        Raises:
            ApiError: A field that takes JSON holds none.
        """
        found = {name: read() for name, read in self._read.items()}
        return {name: value for name, value in found.items() if value is not None}

    def _add(self, name: str, schema: Mapping[str, Any], value: Any) -> None:
        label = str(schema.get("title") or name)
        default = schema.get("default") if value is None else value
        with ui.column().classes("w-full gap-0"):
            self._read[name] = _draw_field(label, schema, default)
            if description := schema.get("description"):
                ui.label(description).classes("text-xs opacity-80")


def _draw_field(label: str, schema: Mapping[str, Any], value: Any) -> Callable[[], Any]:
    kind = schema.get("type")
    if choices := schema.get("enum"):
        select = ui.select(list(choices), value=value, label=label).classes("w-full")
        return lambda: select.value
    if kind == "boolean":
        box = ui.checkbox(label, value=bool(value))
        return lambda: box.value
    if kind in {"integer", "number"}:
        number = ui.number(label, value=value).classes("w-full")
        convert = int if kind == "integer" else float
        return lambda: None if number.value is None else convert(number.value)
    if kind == "string":
        is_long = schema.get("maxLength", 0) > _LINE_CHARACTERS
        text = (ui.textarea if is_long else ui.input)(label, value=value or "").classes("w-full")
        return lambda: text.value or None
    area = ui.textarea(f"{label} (JSON)", value="" if value is None else json.dumps(value)).classes("w-full")
    return lambda: parse_json(label, area.value) if (area.value or "").strip() else None


def parse_json(label: str, text: str | None) -> Any:
    """Return the value of a field that takes JSON.

    Raises:
        ApiError: It holds something else, or nothing.
    """
    try:
        return json.loads(text or "")
    except json.JSONDecodeError as error:
        raise ApiError(f"{label} takes JSON: {error}") from None
