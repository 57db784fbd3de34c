"""Operations on lists compute the same as plain Python."""

import asyncio
import math
import statistics
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import StepFailed
from nodes.workflow.data_processing import process_data
from tests.support.profiles import examples
from tests.support.workflow_calls import step_call
from workflows.steps import DataProcessing

NUMBERS = st.one_of(st.integers(-1_000, 1_000), st.floats(-1e6, 1e6, allow_nan=False))
ROWS = st.lists(
    st.fixed_dictionaries(
        {"k": st.sampled_from(["a", "b", "c", None, 1, True, 1.0]), "n": NUMBERS | st.none()}
    ),
    max_size=30,
)
MODEST = settings(max_examples=examples(40))


def process(rows: Any, others: Any = (), **step: Any) -> Any:
    model = DataProcessing.model_validate(
        {"id": "d", "type": "data_processing", "source": "input.rows", **step}
    )
    return asyncio.run(process_data(model, step_call(input={"rows": rows, "others": list(others)})))


def same(left: Any, right: Any) -> bool:
    """Compare as JSON does: true is not 1."""
    return isinstance(left, bool) == isinstance(right, bool) and bool(left == right)


@MODEST
@given(ROWS)
def test_numbers_are_computed_as_in_python(rows: list[dict[str, Any]]) -> None:
    numbers = [row["n"] for row in rows if row["n"] is not None]
    assert process(rows, operation="sum", value="item.n") == pytest.approx(math.fsum(numbers))
    assert process(rows, operation="count") == len(rows)
    assert process(rows, operation="count", where="item.n") == len(numbers)
    mean = process(rows, operation="mean", value="item.n")
    assert mean == (pytest.approx(statistics.fmean(numbers)) if numbers else None)
    assert process(rows, operation="min", value="item.n") == min(numbers, default=None)
    assert process(rows, operation="max", value="item.n") == max(numbers, default=None)


@MODEST
@given(ROWS, st.integers(-1_000, 1_000), st.booleans())
def test_lists_are_filtered_mapped_and_sorted_as_in_python(
    rows: list[dict[str, Any]], bound: int, descending: bool
) -> None:
    filtered = process(rows, operation="filter", where=f"item.n > `{bound}`")
    assert filtered == [row for row in rows if row["n"] is not None and row["n"] > bound]
    mapped = process(rows, operation="map", to={"i": "{{ index }}", "k": "{{ item.k }}"})
    assert mapped == [{"i": index, "k": row["k"]} for index, row in enumerate(rows)]
    ordered = process(rows, operation="sort", by="item.n", descending=descending)
    present = [row for row in rows if row["n"] is not None]
    expected = sorted(present, key=lambda row: row["n"], reverse=descending)
    assert ordered == expected + [row for row in rows if row["n"] is None]


@MODEST
@given(ROWS)
def test_groups_hold_each_item_once_in_order(rows: list[dict[str, Any]]) -> None:
    groups = process(rows, operation="group", by="item.k")
    for group in groups:
        assert group["items"] == [row for row in rows if same(row["k"], group["key"])]
    assert sum(len(group["items"]) for group in groups) == len(rows)


@MODEST
@given(ROWS, ROWS, st.sampled_from(["inner", "left"]))
def test_a_join_pairs_rows_with_equal_keys(
    left: list[dict[str, Any]], right: list[dict[str, Any]], how: str
) -> None:
    pairs: list[dict[str, Any]] = []
    for row in left:
        matches = [other for other in right if row["k"] is not None and same(row["k"], other["k"])]
        pairs += [{"left": row, "right": match} for match in matches]
        if not matches and how == "left":
            pairs.append({"left": row, "right": None})
    keys = {"other": "input.others", "by": "item.k", "other_by": "item.k"}
    assert process(left, right, operation="join", how=how, **keys) == pairs


@pytest.mark.parametrize(
    ("rows", "step", "why"),
    [
        ("text", {"operation": "count"}, "gives a text, not a list"),
        ([1, "2"], {"operation": "sum"}, 'gives a text for "2", not a number'),
        ([1, True], {"operation": "mean"}, "gives a boolean for true, not a number"),
        ([1, "2"], {"operation": "sort", "by": "item"}, 'gives a text for "2" and a number for others'),
        ([[1], [2]], {"operation": "max"}, "cannot be compared"),
        ([9e307] * 3, {"operation": "sum", "value": "multiply(item, `1`)"}, "too large"),
        ([0] * 100_001, {"operation": "count"}, "the maximum is 100,000"),
        ([0] * 400, {"operation": "join", "other": "input.rows", "by": "item", "other_by": "item"}, "pairs"),
    ],
)
def test_incompatible_values_are_reported_in_plain_words(rows: Any, step: dict[str, Any], why: str) -> None:
    with pytest.raises(StepFailed, match=why):
        process(rows, **step)
