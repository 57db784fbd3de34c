"""The library: definitions with names, a YAML or JSON file each in ``workflows/library``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import yaml
from pydantic import JsonValue, TypeAdapter, ValidationError

from core.errors import InvalidDefinition, StartupError
from workflows.definition.workflow import Definition
from workflows.validation import Fault, read_definition
from workflows.validation.reading import refused

FOLDER: Final = Path(__file__).parent / "library"
LONGEST_BYTES: Final = 5_000_000
_SUFFIXES: Final = frozenset({".yaml", ".yml", ".json"})
_JSON: Final[TypeAdapter[JsonValue]] = TypeAdapter(JsonValue)


class _Loader(yaml.SafeLoader):
    """YAML without aliases: a few lines of them make a document of any size."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="an alias (*name) is not read", problem_mark=_mark(self))
        return super().compose_node(parent, index)


def _mark(loader: yaml.SafeLoader) -> yaml.Mark:
    mark: yaml.Mark = loader.peek_event().start_mark  # type: ignore[no-untyped-call]  # so are the stubs
    return mark


def read_text(text: str) -> Definition:
    """A definition that is written in YAML or JSON, which YAML is a superset of.

    Raises:
        InvalidDefinition: It is neither, or has faults.
    """
    if len(text) > LONGEST_BYTES:
        raise refused([Fault("", "", "", f"is longer than {LONGEST_BYTES} characters")])
    try:
        given = _JSON.validate_python(yaml.load(text, Loader=_Loader))  # noqa: S506 - it is a SafeLoader
    except yaml.YAMLError as error:
        raise refused([Fault("", "", "", f"is neither YAML nor JSON: {_line(error)}")]) from error
    except (ValidationError, RecursionError) as error:
        raise refused([Fault("", "", "", "holds what JSON cannot: write dates in quotes")]) from error
    return read_definition(given)


def load(folder: Path = FOLDER) -> dict[str, Definition]:
    """Every definition of a folder by its name.

    Raises:
        StartupError: One has faults; the message tells all of every file.
    """
    found: dict[str, Definition] = {}
    faults: list[str] = []
    for path in sorted(one for one in folder.iterdir() if one.suffix in _SUFFIXES):
        try:
            definition = read_text(path.read_text("utf-8"))
        except InvalidDefinition as error:
            faults += [_said(path, fault) for fault in error.details["faults"]]
            continue
        if definition.name != path.stem:
            faults.append(f"{path.name}: its name must be that of the file, {path.stem!r}")
        found[definition.name] = definition
    if faults:
        raise StartupError("workflows that cannot be loaded:\n" + "\n".join(faults))
    return found


def _said(path: Path, fault: Mapping[str, str]) -> str:
    place = f"{path.name}: {fault['path']}" if fault["path"] else path.name
    return f"{place}: {fault['message']}"


def _line(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    return str(error).splitlines()[0]


LIBRARY: Final[Mapping[str, Definition]] = load()
