"""Expressions over a workflow's context: JMESPath (https://jmespath.org/specification.html), bounded.

JMESPath has no loops and reads only the JSON it is given, so size is all that has to be bounded: an
expression that pairs a value with itself and pipes the result on doubles it at every step. The form of an
expression tells how much it can multiply its input; one that could grow too much is refused before it runs.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import isfinite, prod
from typing import Any, Final, TypeAlias

from jmespath.exceptions import IncompleteExpressionError, JMESPathError, ParseError
from jmespath.functions import Functions, signature
from jmespath.parser import Parser
from jmespath.visitor import Options, TreeInterpreter
from pydantic import JsonValue

from core.errors import StepFailed
from workflows.json_values import INTEGER_LIMIT

Path: TypeAlias = tuple[str, ...]
# A path, and the value it must have: true, or a text that it is compared with.
Requirement: TypeAlias = tuple[Path, str | bool]
Number: TypeAlias = int | float
# A node of jmespath's syntax tree: {"type", "value", "children"}.
_Node: TypeAlias = dict[str, Any]

MAX_EXPRESSION_LENGTH: Final = 1_000
MAX_EXPRESSION_DEPTH: Final = 40
# The size of a result, as a multiple of the size of the expression's input.
MAX_GROWTH: Final = 64

_MAX_JOINED_LENGTH: Final = 1_000_000
_PROJECTIONS: Final = frozenset({"projection", "value_projection", "filter_projection"})
_CHAINS: Final = frozenset({"subexpression", "index_expression", "pipe"})


class FunctionError(ValueError):
    """Raised when a function has no result that JSON can hold."""


class WorkflowFunctions(Functions):
    """JMESPath's functions, plus arithmetic and letter case; jmespath calls each ``_func_<name>``."""

    @signature({"types": ["number"]}, {"types": ["number"]})
    def _func_add(self, left: Number, right: Number) -> Number:
        return _check_number("add", left + right)

    @signature({"types": ["number"]}, {"types": ["number"]})
    def _func_subtract(self, left: Number, right: Number) -> Number:
        return _check_number("subtract", left - right)

    @signature({"types": ["number"]}, {"types": ["number"]})
    def _func_multiply(self, left: Number, right: Number) -> Number:
        return _check_number("multiply", left * right)

    @signature({"types": ["number"]}, {"types": ["number"]})
    def _func_divide(self, left: Number, right: Number) -> Number:
        if not right:
            raise FunctionError("divide() by zero")
        return _check_number("divide", left / right)

    @signature({"types": ["array-number"]})
    def _func_sum(self, numbers: Sequence[Number]) -> Number:
        return _check_number("sum", sum(numbers))

    @signature({"types": ["array-number"]})
    def _func_avg(self, numbers: Sequence[Number]) -> Number | None:
        return _check_number("avg", sum(numbers) / len(numbers)) if numbers else None

    @signature({"types": ["string"]})
    def _func_lower(self, text: str) -> str:
        return text.lower()

    @signature({"types": ["string"]})
    def _func_upper(self, text: str) -> str:
        return text.upper()

    @signature({"types": ["string"]}, {"types": ["array-string"]})
    def _func_join(self, separator: str, texts: Sequence[str]) -> str:
        if sum(map(len, texts)) + len(separator) * len(texts) > _MAX_JOINED_LENGTH:
            raise FunctionError(f"join() gives a text of more than {_MAX_JOINED_LENGTH:,} characters")
        return separator.join(texts)

    @signature({"types": []})
    def _func_to_number(self, value: JsonValue) -> Number | None:
        """Return null for what is not a number, as JMESPath does, and for numbers that JSON does not have."""
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            return None
        if not isinstance(value, str):
            return value
        for convert in (int, float):
            try:
                return _check_number("to_number", convert(value))
            except ValueError:
                continue
        return None


# It keeps no state between evaluations.
_INTERPRETER: Final = TreeInterpreter(Options(custom_functions=WorkflowFunctions()))


class InvalidExpression(ValueError):
    """Raised when a text is not an expression, or not one that may run.

    Args:
        message: What is wrong and what to do.
        position: Where in the text, from 0.
    """

    def __init__(self, message: str, position: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.position = position


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed expression; create it with :meth:`parse`.

    Attributes:
        text: The expression as it was written.
    """

    text: str
    _tree: _Node = field(repr=False, compare=False)

    @classmethod
    def parse(cls, text: str) -> "Expression":
        """Parse an expression.

        Raises:
            InvalidExpression: The text is not JMESPath, is longer than :data:`MAX_EXPRESSION_LENGTH`
                characters or deeper than :data:`MAX_EXPRESSION_DEPTH`, or could make its input more than
                :data:`MAX_GROWTH` times as large.
        """
        return _parse_cached(text)

    def evaluate(self, context: Mapping[str, JsonValue]) -> JsonValue:
        """Return the value in a context; a missing value is null. The result may share parts of the context.

        Raises:
            StepFailed: A function was called with an argument it does not accept.
        """
        try:
            result: JsonValue = _INTERPRETER.visit(self._tree, context)  # type: ignore[arg-type]  # its own
        except (JMESPathError, FunctionError, TypeError) as error:
            # jmespath raises TypeError when a text is compared with a number.
            reason = str(error).splitlines()[0]
            raise StepFailed(f"the expression {self.text!r} cannot be evaluated: {reason}") from error
        return result

    def list_paths(self) -> frozenset[Path]:
        """Return the paths from the root that the expression reads, such as ``("steps", "a", "output")``.

        A path is as long as the form of the expression can tell without evaluating it.
        """
        paths: set[Path] = set()
        _add_path(_follow(self._tree, (), paths), paths)
        return frozenset(paths)

    def list_requirements(self) -> frozenset[Requirement]:
        """Return what must hold of the context wherever the expression is true, as far as its form tells.

        ``a.b && c == 'x'`` requires that ``a.b`` is true and that ``c`` is ``'x'``; ``a || b`` requires
        nothing.
        """
        return frozenset(_iter_requirements(self._tree))


def is_true(value: JsonValue) -> bool:
    """Tell whether a value is true in JMESPath: everything but null, false and empty values; 0 is true."""
    return not (value is None or value is False or value in ("", [], {}))


@lru_cache(maxsize=8_192)
def _parse_cached(text: str) -> Expression:
    if not text.strip():
        raise InvalidExpression("is empty: write a JMESPath expression such as input.contact_id")
    if len(text) > MAX_EXPRESSION_LENGTH:
        raise InvalidExpression(
            f"has {len(text)} characters; the maximum is {MAX_EXPRESSION_LENGTH}", MAX_EXPRESSION_LENGTH
        )
    tree = _parse_tree(text)
    if _measure_depth(tree) > MAX_EXPRESSION_DEPTH:
        raise _build_depth_error()
    for node in _iter_nodes(tree):
        _check_node(node)
    if _measure_growth(tree) > MAX_GROWTH:
        raise InvalidExpression(f"could grow its input more than {MAX_GROWTH} times: name each value once")
    return Expression(text, tree)


def _parse_tree(text: str) -> _Node:
    try:
        with warnings.catch_warnings():
            # Old JMESPath reads a literal that is not JSON as a text; here it is an error.
            warnings.simplefilter("error", PendingDeprecationWarning)
            return dict(Parser().parse(text).parsed)
    except PendingDeprecationWarning:
        raise InvalidExpression("has a `literal` that is not JSON: write a text as 'text'") from None
    except IncompleteExpressionError as error:
        raise InvalidExpression("is incomplete: something is missing at its end", len(text)) from error
    except ParseError as error:
        what = f" at {error.token_value!r}" if error.token_value else ""
        raise InvalidExpression(f"is not a JMESPath expression{what}", error.lex_position) from error
    except RecursionError:
        raise _build_depth_error() from None
    except (JMESPathError, ValueError) as error:
        # The parser converts literals itself, and json or int raises the error.
        raise InvalidExpression(f"is not a JMESPath expression: {error}") from error


def _build_depth_error() -> InvalidExpression:
    return InvalidExpression(f"is nested deeper than {MAX_EXPRESSION_DEPTH} levels: split it over steps")


def _child_nodes(node: _Node) -> list[_Node]:
    return [child for child in node["children"] if isinstance(child, dict)]


def _iter_nodes(tree: _Node) -> Iterator[_Node]:
    """Yield every node; the recursion is safe because the depth was checked before."""
    yield tree
    for child in _child_nodes(tree):
        yield from _iter_nodes(child)


def _measure_depth(tree: _Node) -> int:
    level, depth = [tree], 0
    while level:
        level, depth = [child for node in level for child in _child_nodes(node)], depth + 1
    return depth


def _check_node(node: _Node) -> None:
    if node["type"] == "function_expression":
        _check_call(node["value"], len(node["children"]))
    if node["type"] == "literal" and not _is_storable(node["value"]):
        raise InvalidExpression("has a number that cannot be stored: NaN, Infinity, or more than 64 bits")
    if node["type"] == "slice" and node["children"][2] == 0:
        raise InvalidExpression("has a slice with step 0")


def _check_call(name: str, arguments: int) -> None:
    functions = WorkflowFunctions.FUNCTION_TABLE
    if name not in functions:
        raise InvalidExpression(f"calls the unknown function {name}(); known: {', '.join(sorted(functions))}")
    parameters = functions[name]["signature"]
    variadic = bool(parameters and parameters[-1].get("variadic"))
    if arguments < len(parameters) or (arguments > len(parameters) and not variadic):
        more = " or more" if variadic else ""
        raise InvalidExpression(f"{name}() takes {len(parameters)}{more} argument(s), not {arguments}")


def _check_number(function: str, result: Number) -> Number:
    if not _is_storable(result):
        raise FunctionError(f"{function}() gives a number that is too large")
    return result


def _is_storable(value: JsonValue) -> bool:
    if isinstance(value, int | float):
        return isfinite(value) and (isinstance(value, float) or abs(value) < INTEGER_LIMIT)
    if isinstance(value, list | dict):
        return all(map(_is_storable, value.values() if isinstance(value, dict) else value))
    return True


def _measure_growth(node: _Node) -> int:
    """Return the largest possible size of a node's value, as a multiple of the size of its input."""
    children = [_measure_growth(child) for child in _child_nodes(node)]
    if node["type"] in _CHAINS or node["type"] in _PROJECTIONS:
        return prod(children[:2] if node["type"] in _PROJECTIONS else children)
    if any(child["type"] == "expref" for child in _child_nodes(node)):
        return prod(children)
    return max(1, sum(children))


def _follow(node: _Node, at: Path | None, paths: set[Path]) -> Path | None:
    """Return the path of a node's value where it is a part of the context, and collect what else it reads.

    Args:
        node: The node to evaluate.
        at: The path of the value it is evaluated on; None: that value is computed.
        paths: Collects the other paths that the node reads.
    """
    kind = node["type"]
    if kind == "field":
        return None if at is None else (*at, node["value"])
    if kind in {"current", "identity"}:
        return at
    if kind in _CHAINS:
        for child in node["children"]:
            at = _follow(child, at, paths)
        return at
    if kind in {"index", "slice", "literal"}:
        _add_path(at if kind != "literal" else None, paths)
        return None
    inner = at
    if kind in _PROJECTIONS:
        _add_path(_follow(node["children"][0], at, paths), paths)
        inner = None
    for child in node["children"][1:] if kind in _PROJECTIONS else node["children"]:
        _add_path(_follow(child, None if kind == "expref" else inner, paths), paths)
    return None


def _iter_requirements(node: _Node) -> Iterator[Requirement]:
    if node["type"] == "and_expression":
        for child in node["children"]:
            yield from _iter_requirements(child)
    elif node["type"] == "comparator" and node["value"] == "eq":
        for one, other in (node["children"], reversed(node["children"])):
            path = _follow(one, (), set())
            if path and other["type"] == "literal" and isinstance(other["value"], str | bool):
                yield path, other["value"]
    elif path := _follow(node, (), set()):
        yield path, True


def _add_path(path: Path | None, paths: set[Path]) -> None:
    if path:
        paths.add(path)
