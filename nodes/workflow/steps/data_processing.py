"""``data_processing``: each operation on lists, bounded, and clear about what does not go together."""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Final, TypeAlias, cast

from pydantic import JsonValue

from core.errors import StepFailed
from workflows.expressions import Expression, is_true
from workflows.numbers import LARGEST
from workflows.ports import StepCall
from workflows.steps.data_processing import DataProcessing, Operation
from workflows.templates import Template

MOST_ITEMS: Final = 100_000
# The event loop has its turn after so many items.
_STRETCH: Final = 500

Number: TypeAlias = int | float
Item: TypeAlias = tuple[JsonValue, dict[str, JsonValue]]
_Run: TypeAlias = Callable[[DataProcessing, "_Lists"], Awaitable[JsonValue]]


async def data_processing(step: DataProcessing, call: StepCall) -> JsonValue:
    """The executor.

    Raises:
        StepFailed: A source is no list, has more than :data:`MOST_ITEMS` items, or its values do not go
            together.
    """
    return await _OPERATIONS[step.operation](step, _Lists(call.context))


class _Lists:
    """The lists an operation reads, and the context its expressions see.

    Args:
        context: The call's.
    """

    def __init__(self, context: Mapping[str, JsonValue]) -> None:
        self._context = dict(context)

    async def items(self, source: str, field: str = "source") -> AsyncIterator[Item]:
        """Each item with the context of its expressions."""
        found = Expression.parse(source).evaluate(self._context)
        if not isinstance(found, list):
            raise StepFailed(f"{field}: {source!r} gives {_kind(found)}, not a list")
        if len(found) > MOST_ITEMS:
            raise StepFailed(f"{field}: {source!r} gives {len(found):,} items; the most is {MOST_ITEMS:,}")
        for index, item in enumerate(found):
            if index % _STRETCH == _STRETCH - 1:
                await asyncio.sleep(0)
            yield item, {**self._context, "item": item, "index": index}

    async def values(self, source: str, of: str | None) -> list[tuple[JsonValue, JsonValue]]:
        """Each item with what an expression gives of it."""
        expression = Expression.parse(of or "item")
        return [(item, expression.evaluate(context)) async for item, context in self.items(source)]


async def _filter(step: DataProcessing, lists: _Lists) -> JsonValue:
    return [item for item, kept in await lists.values(step.source, step.where) if is_true(kept)]


async def _map(step: DataProcessing, lists: _Lists) -> JsonValue:
    template = Template(step.to)
    return [template.render(context) async for _, context in lists.items(step.source)]


async def _group(step: DataProcessing, lists: _Lists) -> JsonValue:
    groups: dict[str, tuple[JsonValue, list[JsonValue]]] = {}
    for item, key in await lists.values(step.source, step.by):
        groups.setdefault(_same(key), (key, []))[1].append(item)
    return [{"key": key, "items": items} for key, items in groups.values()]


async def _count(step: DataProcessing, lists: _Lists) -> JsonValue:
    if step.where is None:
        return len([item async for item, _ in lists.items(step.source)])
    return sum(is_true(kept) for _, kept in await lists.values(step.source, step.where))


async def _sum(step: DataProcessing, lists: _Lists) -> JsonValue:
    return _total(await _numbers(step, lists))


async def _mean(step: DataProcessing, lists: _Lists) -> JsonValue:
    numbers = await _numbers(step, lists)
    return _total(numbers) / len(numbers) if numbers else None


async def _least(step: DataProcessing, lists: _Lists) -> JsonValue:
    found = await _comparable(step.value, step, lists)
    return cast("JsonValue", min(value for _, value in found)) if found else None


async def _most(step: DataProcessing, lists: _Lists) -> JsonValue:
    found = await _comparable(step.value, step, lists)
    return cast("JsonValue", max(value for _, value in found)) if found else None


async def _sort(step: DataProcessing, lists: _Lists) -> JsonValue:
    found = await _comparable(step.by, step, lists)
    found.sort(key=lambda pair: pair[1], reverse=step.descending)
    missing = [item for item, value in await lists.values(step.source, step.by) if value is None]
    return [item for item, _ in found] + missing


async def _join(step: DataProcessing, lists: _Lists) -> JsonValue:
    right: dict[str, list[JsonValue]] = {}
    for item, key in await lists.values(step.other or "", step.other_by):
        if key is not None:
            right.setdefault(_same(key), []).append(item)
    pairs: list[JsonValue] = []
    for item, key in await lists.values(step.source, step.by):
        # As in SQL, null equals nothing.
        matches = right.get(_same(key), []) if key is not None else []
        pairs += [{"left": item, "right": match} for match in matches]
        if not matches and step.how == "left":
            pairs.append({"left": item, "right": None})
        if len(pairs) > MOST_ITEMS:
            raise StepFailed(f"the join gives more than {MOST_ITEMS:,} pairs: compare something more telling")
    return pairs


_OPERATIONS: Final[Mapping[Operation, _Run]] = {
    "filter": _filter,
    "map": _map,
    "group": _group,
    "count": _count,
    "sum": _sum,
    "mean": _mean,
    "min": _least,
    "max": _most,
    "join": _join,
    "sort": _sort,
}


async def _numbers(step: DataProcessing, lists: _Lists) -> list[Number]:
    numbers: list[Number] = []
    for item, value in await lists.values(step.source, step.value):
        if isinstance(value, bool) or not isinstance(value, int | float | None):
            raise StepFailed(
                f"{step.operation}: {step.value!r} gives {_kind(value)} for {_shown(item)}, not a number"
            )
        if value is not None:
            numbers.append(value)
    return numbers


def _total(numbers: Iterable[Number]) -> Number:
    """Exact for whole numbers; else the rounded exact sum (Shewchuk 1997), whatever the order."""
    numbers = list(numbers)
    try:
        total: Number = sum(numbers) if all(isinstance(one, int) for one in numbers) else math.fsum(numbers)
    except OverflowError:
        total = math.inf
    if not -LARGEST < total < LARGEST and (isinstance(total, int) or math.isinf(total)):
        raise StepFailed("the sum is too large a number")
    return total


async def _comparable(
    of: str | None, step: DataProcessing, lists: _Lists
) -> list[tuple[JsonValue, str | Number]]:
    """Items with a value to compare them by: all of them numbers, or all of them texts; null is left out."""
    found: list[tuple[JsonValue, str | Number]] = []
    kind = ""
    for item, value in await lists.values(step.source, of):
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise StepFailed(f"{step.operation}: {of!r} gives {_kind(value)} for {_shown(item)}: no order")
        kind = kind or _kind(value)
        if _kind(value) != kind:
            raise StepFailed(
                f"{step.operation}: {of!r} gives {_kind(value)} for {_shown(item)} and {kind} for others"
            )
        found.append((item, value))
    return found


def _same(key: JsonValue) -> str:
    """Equal for equal JSON; 1 and 1.0 are equal, true and 1 are not."""
    if isinstance(key, float) and key.is_integer():
        key = int(key)
    return json.dumps(key, sort_keys=True)


def _kind(value: JsonValue) -> str:
    if isinstance(value, bool):
        return "a boolean"
    if value is None:
        return "null"
    kinds: dict[type, str] = {
        int: "a number",
        float: "a number",
        str: "a text",
        list: "a list",
        dict: "an object",
    }
    return kinds[type(value)]


def _shown(item: JsonValue) -> str:
    text = json.dumps(item, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:80]}…"  # noqa: PLR2004 - enough to know it by
