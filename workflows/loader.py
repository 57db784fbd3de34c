"""Definitions written in YAML or JSON, and the library: one file per definition in ``workflows/library``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import JsonValue, TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent

from core.errors import InvalidDefinition, NotFound, StartupError
from workflows.faults import Fault
from workflows.requests import WorkflowRequest
from workflows.schema import Definition
from workflows.validation import build_error, read_definition

LIBRARY_DIR: Final = Path(__file__).parent / "library"
MAX_TEXT_LENGTH: Final = 5_000_000
_SUFFIXES: Final = frozenset({".yaml", ".yml", ".json"})
_JSON: Final[TypeAdapter[JsonValue]] = TypeAdapter(JsonValue)


class SafeYAML(YAML):
    """Reads and writes plain values, without a blocking search for plug-ins on the disk."""

    def __init__(self) -> None:
        super().__init__(typ="safe", pure=True)

    def official_plug_ins(self) -> list[str]:
        """Return no plug-ins."""
        return []


class _AliasFreeComposer(Composer):
    """Refuses aliases, with which a few lines expand to a document of any size."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.parser.check_event(AliasEvent):
            mark = self.parser.peek_event().start_mark
            raise MarkedYAMLError(problem="aliases (*name) are not allowed", problem_mark=mark)
        return super().compose_node(parent, index)


def parse_definition(text: str) -> Definition:
    """Return the definition that a text in YAML or JSON holds; YAML is a superset of JSON.

    Raises:
        InvalidDefinition: The text is neither, or the definition has faults.
    """
    if len(text) > MAX_TEXT_LENGTH:
        raise build_error([Fault("", "", "", f"is longer than {MAX_TEXT_LENGTH} characters")])
    parser = SafeYAML()
    parser.Composer = _AliasFreeComposer
    try:
        document = _JSON.validate_python(parser.load(text))
    except YAMLError as error:
        fault = Fault("", "", "", f"is neither YAML nor JSON: {_describe(error)}")
        raise build_error([fault]) from error
    except (ValidationError, RecursionError) as error:
        fault = Fault("", "", "", "holds values that JSON does not have: write dates in quotes")
        raise build_error([fault]) from error
    return read_definition(document)


def load_library(folder: Path = LIBRARY_DIR) -> dict[str, Definition]:
    """Return every definition of a folder by its name.

    Raises:
        StartupError: A definition has faults; the message lists those of every file.
    """
    definitions: dict[str, Definition] = {}
    faults: list[str] = []
    for path in sorted(file for file in folder.iterdir() if file.suffix in _SUFFIXES):
        try:
            definition = parse_definition(path.read_text("utf-8"))
        except InvalidDefinition as error:
            for fault in error.details["faults"]:
                place = f"{path.name}: {fault['path']}" if fault["path"] else path.name
                faults.append(f"{place}: {fault['message']}")
            continue
        if definition.name != path.stem:
            faults.append(f"{path.name}: its name must be the file's, {path.stem!r}")
        definitions[definition.name] = definition
    if faults:
        raise StartupError("workflows that cannot be loaded:\n" + "\n".join(faults))
    return definitions


def load_request(request: WorkflowRequest) -> Definition:
    """Return the definition that a request names or holds.

    Raises:
        NotFound: The library has no workflow of that name.
        InvalidDefinition: The definition has faults.
    """
    if not request.name:
        return read_definition(request.definition)
    if request.name not in LIBRARY:
        names = sorted(LIBRARY)
        message = f"the library has no workflow {request.name!r}; there are {', '.join(names)}"
        raise NotFound(message, details={"names": names})
    return LIBRARY[request.name]


def _describe(error: YAMLError) -> str:
    if isinstance(error, MarkedYAMLError) and error.problem_mark:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    return str(error).splitlines()[0]


LIBRARY: Final[Mapping[str, Definition]] = load_library()
