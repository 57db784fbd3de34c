"""The executor of ``data_processing``: bounded operations on lists that report incompatible values."""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeAlias, cast

from pydantic import JsonValue

from core.errors import StepFailed
from workflows.expressions import Expression, Number, is_true
from workflows.json_values import INTEGER_LIMIT
from workflows.ports import StepCall
from workflows.steps import DataProcessing, Operation
from workflows.templates import Template

MAX_ITEMS: Final = 100_000
# The event loop runs other tasks after so many items.
_ITEMS_PER_TURN: Final = 500
_MAX_SHOWN_LENGTH: Final = 80
_TYPE_NAMES: Final[Mapping[type, str]] = {
    bool: "a boolean",
    type(None): "null",
    int: "a number",
    float: "a number",
    str: "a text",
    list: "a list",
    dict: "an object",
}

_Operation: TypeAlias = Callable[[DataProcessing, "_ListReader"], Awaitable[JsonValue]]


async def process_data(step: DataProcessing, call: StepCall) -> JsonValue:
    """Execute ``data_processing``.

    Raises:
        StepFailed: A source is not a list or has more than :data:`MAX_ITEMS` items, or its values cannot be
            compared or added.
    """
    return await _OPERATIONS[step.operation](step, _ListReader(call.context))


class _ListReader:
    """Reads the lists of an operation, with the context that its expressions see.

    Args:
        context: The context of the call.
    """

    def __init__(self, context: Mapping[str, JsonValue]) -> None:
        self._context = dict(context)

    async def iter_items(self, source: str) -> AsyncIterator[tuple[JsonValue, dict[str, JsonValue]]]:
        """Yield each item with the context of its expressions."""
        items = Expression.parse(source).evaluate(self._context)
        if not isinstance(items, list):
            raise StepFailed(f"source: {source!r} gives {_type_name(items)}, not a list")
        if len(items) > MAX_ITEMS:
            raise StepFailed(f"source: {source!r} gives {len(items):,} items; the maximum is {MAX_ITEMS:,}")
        for index, item in enumerate(items):
            if index % _ITEMS_PER_TURN == _ITEMS_PER_TURN - 1:
                await asyncio.sleep(0)
            yield item, {**self._context, "item": item, "index": index}

    async def read_values(self, source: str, text: str | None) -> list[tuple[JsonValue, JsonValue]]:
        """Return each item with the value of an expression."""
        expression = Expression.parse(text or "item")
        return [(item, expression.evaluate(context)) async for item, context in self.iter_items(source)]


async def _filter(step: DataProcessing, reader: _ListReader) -> JsonValue:
    return [item for item, keep in await reader.read_values(step.source, step.where) if is_true(keep)]


async def _map(step: DataProcessing, reader: _ListReader) -> JsonValue:
    template = Template(step.to)
    return [template.render(context) async for _, context in reader.iter_items(step.source)]


async def _group(step: DataProcessing, reader: _ListReader) -> JsonValue:
    groups: dict[str, tuple[JsonValue, list[JsonValue]]] = {}
    for item, key in await reader.read_values(step.source, step.by):
        groups.setdefault(_hash_key(key), (key, []))[1].append(item)
    return [{"key": key, "items": items} for key, items in groups.values()]


async def _count(step: DataProcessing, reader: _ListReader) -> JsonValue:
    if step.where is None:
        return len([item async for item, _ in reader.iter_items(step.source)])
    return sum(is_true(keep) for _, keep in await reader.read_values(step.source, step.where))


async def _sum(step: DataProcessing, reader: _ListReader) -> JsonValue:
    return _add_up(await _read_numbers(step, reader))


async def _mean(step: DataProcessing, reader: _ListReader) -> JsonValue:
    numbers = await _read_numbers(step, reader)
    return _add_up(numbers) / len(numbers) if numbers else None


async def _min(step: DataProcessing, reader: _ListReader) -> JsonValue:
    comparable = await _read_comparable(step.value, step, reader)
    return cast("JsonValue", min(value for _, value in comparable)) if comparable else None


async def _max(step: DataProcessing, reader: _ListReader) -> JsonValue:
    comparable = await _read_comparable(step.value, step, reader)
    return cast("JsonValue", max(value for _, value in comparable)) if comparable else None


async def _sort(step: DataProcessing, reader: _ListReader) -> JsonValue:
    comparable = await _read_comparable(step.by, step, reader)
    comparable.sort(key=lambda pair: pair[1], reverse=step.descending)
    missing = [item for item, value in await reader.read_values(step.source, step.by) if value is None]
    return [item for item, _ in comparable] + missing


async def _join(step: DataProcessing, reader: _ListReader) -> JsonValue:
    right: dict[str, list[JsonValue]] = {}
    for item, key in await reader.read_values(step.other or "", step.other_by):
        if key is not None:
            right.setdefault(_hash_key(key), []).append(item)
    pairs: list[JsonValue] = []
    for item, key in await reader.read_values(step.source, step.by):
        # As in SQL, null does not equal anything.
        matches = right.get(_hash_key(key), []) if key is not None else []
        pairs += [{"left": item, "right": match} for match in matches]
        if not matches and step.how == "left":
            pairs.append({"left": item, "right": None})
        if len(pairs) > MAX_ITEMS:
            raise StepFailed(f"the join gives more than {MAX_ITEMS:,} pairs: use a key with fewer duplicates")
    return pairs


_OPERATIONS: Final[Mapping[Operation, _Operation]] = {
    "filter": _filter,
    "map": _map,
    "group": _group,
    "count": _count,
    "sum": _sum,
    "mean": _mean,
    "min": _min,
    "max": _max,
    "join": _join,
    "sort": _sort,
}


async def _read_numbers(step: DataProcessing, reader: _ListReader) -> list[Number]:
    numbers: list[Number] = []
    for item, value in await reader.read_values(step.source, step.value):
        if isinstance(value, bool) or not isinstance(value, int | float | None):
            raise StepFailed(
                f"{step.operation}: {step.value!r} gives {_type_name(value)} for {_show(item)}, not a number"
            )
        if value is not None:
            numbers.append(value)
    return numbers


def _add_up(numbers: Sequence[Number]) -> Number:
    """Return the exact sum of integers, or the rounded exact sum of floats (Shewchuk 1997) in any order."""
    try:
        total: Number = sum(numbers) if all(isinstance(one, int) for one in numbers) else math.fsum(numbers)
    except OverflowError:
        total = math.inf
    if not -INTEGER_LIMIT < total < INTEGER_LIMIT and (isinstance(total, int) or math.isinf(total)):
        raise StepFailed("the sum is a number that is too large")
    return total


async def _read_comparable(
    expression: str | None, step: DataProcessing, reader: _ListReader
) -> list[tuple[JsonValue, str | Number]]:
    """Return the items with values to compare, all numbers or all texts, without those that are null."""
    comparable: list[tuple[JsonValue, str | Number]] = []
    expected = ""
    for item, value in await reader.read_values(step.source, expression):
        if value is None:
            continue
        type_name, shown = _type_name(value), f"{step.operation}: {expression!r} gives"
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise StepFailed(f"{shown} {type_name} for {_show(item)}, which cannot be compared")
        expected = expected or type_name
        if type_name != expected:
            raise StepFailed(f"{shown} {type_name} for {_show(item)} and {expected} for others")
        comparable.append((item, value))
    return comparable


def _hash_key(key: JsonValue) -> str:
    """Return a text that is equal for equal JSON: 1 and 1.0 are equal, true and 1 are not."""
    if isinstance(key, float) and key.is_integer():
        key = int(key)
    return json.dumps(key, sort_keys=True)


def _type_name(value: JsonValue) -> str:
    return _TYPE_NAMES[type(value)]


def _show(item: JsonValue) -> str:
    text = json.dumps(item, ensure_ascii=False)
    return text if len(text) <= _MAX_SHOWN_LENGTH else f"{text[:_MAX_SHOWN_LENGTH]}…"
