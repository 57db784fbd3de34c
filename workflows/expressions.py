"""Expressions over a workflow's context: JMESPath (https://jmespath.org/specification.html), bounded.

JMESPath has neither loops nor access to anything but the JSON it is given, so what must be bounded is size:
an expression that pairs a value with itself and pipes that on doubles it each time. How much an expression
can multiply its input follows from its form, so it is refused before it runs.
"""

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from math import isfinite, prod
from typing import Any, Final, TypeAlias

from jmespath.exceptions import IncompleteExpressionError, JMESPathError, ParseError
from jmespath.parser import Parser
from jmespath.visitor import Options, TreeInterpreter
from pydantic import JsonValue

from core.errors import StepFailed
from workflows.functions import Unfit, WorkflowFunctions, arity_fault
from workflows.numbers import LARGEST

Path: TypeAlias = tuple[str, ...]
# jmespath's syntax tree: {"type", "value", "children"}.
_Node: TypeAlias = dict[str, Any]

LONGEST: Final = 1_000
DEEPEST: Final = 40
# How many times the size of its input an expression's result may have.
MOST_GROWTH: Final = 64

_PROJECTIONS: Final = frozenset({"projection", "value_projection", "filter_projection"})
_CHAINS: Final = frozenset({"subexpression", "index_expression", "pipe"})
# It keeps nothing of what it evaluates.
_INTERPRETER: Final = TreeInterpreter(Options(custom_functions=WorkflowFunctions()))


class ExpressionFault(ValueError):
    """Raise when a text is no expression, or not one that may run.

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
    """A parsed expression; make it with :meth:`parse`.

    Attributes:
        text: As it was written.
    """

    text: str
    _tree: _Node = field(repr=False, compare=False)

    @classmethod
    def parse(cls, text: str) -> "Expression":
        """Read an expression.

        Raises:
            ExpressionFault: It is none, longer than :data:`LONGEST` characters, deeper than :data:`DEEPEST`,
                or could make its input more than :data:`MOST_GROWTH` times as large.
        """
        return _parsed(text)

    def evaluate(self, context: Mapping[str, JsonValue]) -> JsonValue:
        """The value in a context; what is not there is null. The value shares what it can with the context.

        Raises:
            StepFailed: A function was given what it cannot take.
        """
        try:
            result: JsonValue = _INTERPRETER.visit(self._tree, context)  # type: ignore[arg-type]  # its own
        except (JMESPathError, Unfit, TypeError) as error:
            # A TypeError is an order between a text and a number.
            reason = str(error).splitlines()[0]
            raise StepFailed(f"the expression {self.text!r} cannot be evaluated: {reason}") from error
        return result

    def paths(self) -> frozenset[Path]:
        """What it refers to from the root, as far as its form tells: ``("steps", "a", "output")``."""
        found: set[Path] = set()
        end = _follow(self._tree, (), found)
        return frozenset(found | ({end} if end else set()))


def is_true(value: JsonValue) -> bool:
    """JMESPath's truth: all but null, false and what is empty; 0 is true."""
    return not (value is None or value is False or value in ("", [], {}))


@lru_cache(maxsize=8_192)
def _parsed(text: str) -> Expression:
    if not text.strip():
        raise ExpressionFault("is empty: write a JMESPath expression such as input.contact_id")
    if len(text) > LONGEST:
        raise ExpressionFault(f"has {len(text)} characters; the most is {LONGEST}", LONGEST)
    tree = _tree(text)
    if _depth(tree) > DEEPEST:
        raise ExpressionFault(f"is nested more than {DEEPEST} deep: do it in several steps")
    for node in _nodes(tree):
        _require_fit(node)
    if _growth(tree) > MOST_GROWTH:
        raise ExpressionFault(
            f"could make its input more than {MOST_GROWTH} times as large: name each value once"
        )
    return Expression(text, tree)


def _tree(text: str) -> _Node:
    try:
        with warnings.catch_warnings():
            # A literal that is no JSON is a text in old JMESPath: here it is a mistake.
            warnings.simplefilter("error", PendingDeprecationWarning)
            return dict(Parser().parse(text).parsed)
    except PendingDeprecationWarning:
        raise ExpressionFault("has a `literal` that is no JSON: write a text as 'text'") from None
    except IncompleteExpressionError as error:
        raise ExpressionFault("is incomplete: something is missing at its end", len(text)) from error
    except ParseError as error:
        what = f" at {error.token_value!r}" if error.token_value else ""
        raise ExpressionFault(f"is no JMESPath expression{what}", error.lex_position) from error
    except RecursionError:
        raise ExpressionFault(f"is nested more than {DEEPEST} deep: do it in several steps") from None
    except (JMESPathError, ValueError) as error:
        # Parts that the parser converts itself, as a literal's JSON.
        raise ExpressionFault(f"is no JMESPath expression: {error}") from error


def _children(node: _Node) -> list[_Node]:
    return [child for child in node["children"] if isinstance(child, dict)]


def _nodes(tree: _Node) -> Iterator[_Node]:
    """Every node; the parser's own recursion has bounded the depth."""
    yield tree
    for child in _children(tree):
        yield from _nodes(child)


def _depth(tree: _Node) -> int:
    level, depth = [tree], 0
    while level:
        level, depth = [child for node in level for child in _children(node)], depth + 1
    return depth


def _require_fit(node: _Node) -> None:
    if node["type"] == "function_expression" and (fault := arity_fault(node["value"], len(node["children"]))):
        raise ExpressionFault(fault)
    if node["type"] == "literal" and not _is_json(node["value"]):
        raise ExpressionFault("has a number that cannot be kept: NaN, Infinity, or more than 64 bits")
    if node["type"] == "slice" and node["children"][2] == 0:
        raise ExpressionFault("has a slice with step 0")


def _is_json(value: JsonValue) -> bool:
    if isinstance(value, int | float):
        return isfinite(value) and (isinstance(value, float) or abs(value) < LARGEST)
    if isinstance(value, list | dict):
        return all(map(_is_json, value.values() if isinstance(value, dict) else value))
    return True


def _growth(node: _Node) -> int:
    """The most that the size of the node's value can be, as a multiple of the size of what it sees."""
    children = [_growth(child) for child in _children(node)]
    if node["type"] in _CHAINS or node["type"] in _PROJECTIONS:
        return prod(children[:2] if node["type"] in _PROJECTIONS else children)
    if node["type"] == "function_expression" and any(child["type"] == "expref" for child in _children(node)):
        return prod(children)
    return max(1, sum(children))


def _follow(node: _Node, at: Path | None, found: set[Path]) -> Path | None:
    """Where the node's value is, when it is a part of the context; adds what else it reads to ``found``.

    Args:
        node: What is evaluated.
        at: Where the value it is evaluated on is; None: nowhere, it was made.
        found: Gathers.
    """
    kind = node["type"]
    if kind == "field":
        return None if at is None else (*at, node["value"])
    if kind in {"current", "identity"}:
        return at
    if kind in _CHAINS:
        for child in node["children"]:
            at = _follow(child, at, found)
        return at
    if kind in {"index", "slice", "literal"}:
        _note(at if kind != "literal" else None, found)
        return None
    inner = at
    if kind in _PROJECTIONS:
        _note(_follow(node["children"][0], at, found), found)
        inner = None
    for child in node["children"][1:] if kind in _PROJECTIONS else node["children"]:
        _note(_follow(child, None if kind == "expref" else inner, found), found)
    return None


def _note(path: Path | None, found: set[Path]) -> None:
    if path:
        found.add(path)
