"""JMESPath's functions, and arithmetic and case, which it lacks; no result is too large for JSON."""

import math
from collections.abc import Sequence
from typing import Final

from jmespath.functions import Functions, signature
from pydantic import JsonValue

from workflows.numbers import LARGEST

Number = int | float

_LONGEST_TEXT: Final = 1_000_000


class Unfit(ValueError):
    """Raise when a function cannot give a result that JSON can hold."""


def _fits(name: str, result: Number) -> Number:
    if not math.isfinite(result) or (isinstance(result, int) and abs(result) >= LARGEST):
        raise Unfit(f"{name}() gives a number that is too large")
    return result


class WorkflowFunctions(Functions):
    """What expressions may call; jmespath takes each ``_func_<name>``."""

    @signature({"types": ["number"]}, {"types": ["number"]})
    def _func_add(self, left: Number, right: Number) -> Number:
        return _fits("add", left + right)

    @signature({"types": ["number"]}, {"types": ["number"]})
    def _func_subtract(self, left: Number, right: Number) -> Number:
        return _fits("subtract", left - right)

    @signature({"types": ["number"]}, {"types": ["number"]})
    def _func_multiply(self, left: Number, right: Number) -> Number:
        return _fits("multiply", left * right)

    @signature({"types": ["number"]}, {"types": ["number"]})
    def _func_divide(self, left: Number, right: Number) -> Number:
        if not right:
            raise Unfit("divide() by zero")
        return _fits("divide", left / right)

    @signature({"types": ["array-number"]})
    def _func_sum(self, numbers: Sequence[Number]) -> Number:
        return _fits("sum", sum(numbers))

    @signature({"types": ["array-number"]})
    def _func_avg(self, numbers: Sequence[Number]) -> Number | None:
        return _fits("avg", sum(numbers) / len(numbers)) if numbers else None

    @signature({"types": ["string"]})
    def _func_lower(self, text: str) -> str:
        return text.lower()

    @signature({"types": ["string"]})
    def _func_upper(self, text: str) -> str:
        return text.upper()

    @signature({"types": ["string"]}, {"types": ["array-string"]})
    def _func_join(self, separator: str, texts: Sequence[str]) -> str:
        if sum(map(len, texts)) + len(separator) * len(texts) > _LONGEST_TEXT:
            raise Unfit(f"join() gives a text of more than {_LONGEST_TEXT:,} characters")
        return separator.join(texts)

    @signature({"types": []})
    def _func_to_number(self, value: JsonValue) -> Number | None:
        """None where it is no number, as in JMESPath, and also for those that JSON does not have."""
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            return None
        if not isinstance(value, str):
            return value
        for read in (int, float):
            try:
                return _fits("to_number", read(value))
            except ValueError:
                continue
        return None


def arity_fault(name: str, given: int) -> str:
    """Why a function cannot be called so; empty: it can."""
    spec = WorkflowFunctions.FUNCTION_TABLE.get(name)
    if spec is None:
        return (
            f"there is no function {name}(); there are {', '.join(sorted(WorkflowFunctions.FUNCTION_TABLE))}"
        )
    takes = len(spec["signature"])
    variadic = bool(spec["signature"] and spec["signature"][-1].get("variadic"))
    if given < takes or (given > takes and not variadic):
        return f"{name}() takes {takes}{' or more' if variadic else ''} argument(s), not {given}"
    return ""
