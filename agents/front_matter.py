"""YAML as plain values, with the line each of them stands in.

A part of YAML only: texts, numbers, lists and mappings. What YAML would read as something else (``no``, a
date, an alias) is refused, so that nobody's text becomes another thing silently.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import yaml

from agents.faults import Fault, Place, at

Value = str | float | list["Value"] | dict[str, "Value"]

_DEEPEST = 8
_YAML = "tag:yaml.org,2002:"
_NUMBERS = (f"{_YAML}float", f"{_YAML}int")


class _Mark(Protocol):
    """A place in the text, PyYAML's or its C library's."""

    index: int


@dataclass(frozen=True, slots=True)
class FrontMatter:
    """What was read.

    Attributes:
        fields: The values; those at fault are left out.
        lines: The line of each value, by its place.
        texts: Each text, by its place.
        faults: What could not be taken.
        refused: The places of values that could not be taken.
    """

    fields: dict[str, Value]
    lines: Mapping[Place, int]
    texts: Mapping[Place, str]
    faults: tuple[Fault, ...]
    refused: frozenset[Place]


def read_front_matter(file: str, text: str) -> FrontMatter | Fault:
    """Read a YAML mapping; the fault where it is none.

    Args:
        file: The name faults are reported with.
        text: YAML whose lines are those of the file.
    """
    root = _compose(file, text)
    if isinstance(root, Fault):
        return root
    reading = _Reading(file, text)
    fields = reading.mapping(root, ()) if root is not None else {}
    return FrontMatter(
        fields, reading.lines, reading.texts, tuple(reading.faults), frozenset(reading.refused)
    )


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader without aliases and without depth, neither of which a simple file needs."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise self._refusal("aliases (*name) are not used here; write the value out")
        if self.depth == _DEEPEST:
            raise self._refusal("lists and mappings are nested too deep")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def _refusal(self, problem: str) -> yaml.MarkedYAMLError:
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        return yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)  # type: ignore[arg-type]


def _compose(file: str, text: str) -> yaml.MappingNode | Fault | None:
    loader = None
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        return Fault(file, _line(text, mark), f"the YAML cannot be read: {error.problem or error.context}")
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        return Fault(file, line, f"the YAML cannot be read: it holds the character U+{error.character:04X}")
    except (ValueError, OverflowError) as error:
        # PyYAML turns escapes and versions into numbers without looking: "\UFFFFFFFF".
        mark = loader.get_mark() if loader is not None else None
        return Fault(file, _line(text, mark), f"the YAML cannot be read: {error}")
    if root is None or isinstance(root, yaml.MappingNode):
        return root
    return Fault(file, _line(text, root.start_mark), "the front matter must be fields, 'name: value' each")


def _line(text: str, mark: _Mark | None) -> int:
    # Not mark.line: YAML counts U+0085, U+2028 and U+2029 as ends of lines, editors do not.
    return text.count("\n", 0, mark.index) + 1 if mark is not None else 1


@dataclass(slots=True)
class _Reading:
    """Nodes as values, and what was seen on the way."""

    file: str
    text: str
    lines: dict[Place, int] = field(default_factory=dict)
    texts: dict[Place, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    refused: set[Place] = field(default_factory=set)

    def mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, Value]:
        """A mapping; a name given twice keeps its first value."""
        values: dict[str, Value] = {}
        for key, item in node.value:
            line = _line(self.text, key.start_mark)
            if not isinstance(key, yaml.ScalarNode):
                self._fault(line, place, "the name of a field must be a word")
                continue
            here = (*place, key.value)
            if here in self.lines:
                self._fault(line, here, f"is given twice, first at line {self.lines[here]}")
                continue
            self.lines[here] = line
            if (value := self._value(item, here)) is not None:
                values[key.value] = value
        return values

    def _value(self, node: yaml.Node, place: Place) -> Value | None:
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, place)
        if isinstance(node, yaml.SequenceNode):
            return self._sequence(node, place)
        return self._scalar(node, place)

    def _sequence(self, node: yaml.SequenceNode, place: Place) -> list[Value]:
        values: list[Value] = []
        for number, item in enumerate(node.value):
            here = (*place, number)
            self.lines[here] = _line(self.text, item.start_mark)
            value = self._value(item, here)
            # A stand-in keeps the numbers of those that follow; its file is refused in any case.
            values.append(value if value is not None else "?")
        return values

    def _scalar(self, node: yaml.Node, place: Place) -> Value | None:
        if node.tag == f"{_YAML}str":
            self.texts[place] = node.value
            return str(node.value)
        if node.tag in _NUMBERS:
            try:
                return float(node.value)
            except ValueError:
                pass
        self.refused.add(place)
        kind = node.tag.removeprefix(_YAML)
        self._fault(
            _line(self.text, node.start_mark),
            place,
            f"YAML reads {node.value!r} as {kind}; put it in quotes if it is a text",
        )
        return None

    def _fault(self, line: int, place: Place, what: str) -> None:
        self.faults.append(Fault(self.file, line, at(place, what)))
