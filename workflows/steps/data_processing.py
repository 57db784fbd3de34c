"""``data_processing``: lists made of the results of earlier steps."""

from collections.abc import Mapping
from typing import Final, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from workflows.definition.base import StepBase
from workflows.fields import ExpressionText, TemplateJson

Operation: TypeAlias = Literal["filter", "map", "group", "sum", "count", "mean", "min", "max", "join", "sort"]

# Fields an operation needs, and others it takes.
NEEDS: Final[Mapping[Operation, frozenset[str]]] = {
    "filter": frozenset({"where"}),
    "map": frozenset({"to"}),
    "group": frozenset({"by"}),
    "sum": frozenset(),
    "count": frozenset(),
    "mean": frozenset(),
    "min": frozenset(),
    "max": frozenset(),
    "join": frozenset({"other", "by", "other_by"}),
    "sort": frozenset({"by"}),
}
TAKES: Final[Mapping[Operation, frozenset[str]]] = {
    "sum": frozenset({"value"}),
    "count": frozenset({"where"}),
    "mean": frozenset({"value"}),
    "min": frozenset({"value"}),
    "max": frozenset({"value"}),
    "join": frozenset({"how"}),
    "sort": frozenset({"descending"}),
}
_SPECIFIC: Final = frozenset({"where", "to", "by", "value", "other", "other_by", "how", "descending"})


class DataProcessing(StepBase):
    """Make a list, or a number, of a list.

    ``filter``: items for which ``where`` is true. ``map``: ``to`` for each item. ``group``: ``{key, items}``
    for each value of ``by``, in the order they first appear. ``sum``, ``mean``, ``min``, ``max``: of
    ``value``; null counts for nothing. ``count``: of those for which ``where`` is true. ``join``: ``{left,
    right}`` for each pair whose ``by`` and ``other_by`` are equal; with ``how: left`` also those of ``left``
    that have none. ``sort``: by ``by``, stably, null last. Expressions see the context with ``item`` and
    ``index``.
    """

    type: Literal["data_processing"]
    operation: Operation
    source: ExpressionText = Field(description="The list, e.g. steps.orders.output")
    where: ExpressionText | None = None
    to: TemplateJson = None
    by: ExpressionText | None = None
    value: ExpressionText = "item"
    other: ExpressionText | None = Field(None, description="The second list of a join")
    other_by: ExpressionText | None = Field(None, description="What of its items is compared")
    how: Literal["inner", "left"] = "inner"
    descending: bool = False

    @model_validator(mode="after")
    def _fits_its_operation(self) -> Self:
        given = self.model_fields_set & _SPECIFIC
        needed, taken = NEEDS[self.operation], TAKES.get(self.operation, frozenset())
        if missing := sorted(needed - given):
            raise ValueError(f"{self.operation} needs {', '.join(missing)}")
        if foreign := sorted(given - needed - taken):
            raise ValueError(f"{self.operation} does not take {', '.join(foreign)}")
        return self
