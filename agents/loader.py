"""Reads the agents' files, and says all that is wrong with them at once."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from agents.document import Document, read_document, read_text
from agents.faults import Fault, Place, at
from agents.spec import AgentSpec, Checks, words
from core.errors import StartupError

FOLDER = Path(__file__).resolve().parent
# Who answers when nobody else fits.
FALLBACK = "general"

_README = "README.md"
_OUTSIDE = "outside.txt"
_SPEC = TypeAdapter(AgentSpec)
_FIELDS = ", ".join(field.name for field in fields(AgentSpec) if field.name != "prompt")


def load_agents(folder: Path = FOLDER, *, tools: Collection[str]) -> Mapping[str, AgentSpec]:
    """Read every agent of a folder: each ``*.md`` but the README.

    Args:
        folder: Where the files are.
        tools: Names of the tools there are.

    Returns:
        The agents by name, sorted.

    Raises:
        StartupError: Some files are wrong; the message has a line ``file:line: what`` for each fault.
    """
    paths = sorted(path for path in folder.glob("*.md") if path.name != _README)
    if not paths:
        raise StartupError(f"there are no agents in {str(folder)!r}: it must hold a file NAME.md for each")
    documents: list[Document] = []
    faults: list[Fault] = []
    agents: dict[str, AgentSpec] = {}
    for path in paths:
        document = read_document(path)
        if isinstance(document, Fault):
            faults.append(document)
            continue
        documents.append(document)
        agent = _agent(document, Checks(name=path.stem, tools=tools))
        if isinstance(agent, AgentSpec):
            agents[agent.name] = agent
        else:
            faults += agent
    faults += _repetitions(documents)
    if not any(path.stem == FALLBACK for path in paths):
        faults.append(Fault(f"{FALLBACK}.md", 1, "there must be this agent: it answers what no other does"))
    if faults:
        raise _startup_error(faults)
    return dict(sorted(agents.items()))


def outside_utterances(folder: Path = FOLDER) -> tuple[str, ...]:
    """Messages that no agent serves: what the router's abstention is fitted on.

    Raises:
        StartupError: The file cannot be read or has none.
    """
    text = read_text(folder / _OUTSIDE)
    if isinstance(text, Fault):
        raise StartupError(str(text))
    rows = (row.strip() for row in text.split("\n"))
    utterances = tuple(row for row in rows if row and not row.startswith("#"))
    if not utterances:
        raise StartupError(f"{_OUTSIDE}:1: there are no messages; write one a line")
    return utterances


def _agent(document: Document, checks: Checks) -> AgentSpec | list[Fault]:
    front = document.front
    faults = list(front.faults)
    if ("prompt",) in front.lines:
        line = document.line(("prompt",))
        faults.append(Fault(document.file, line, "prompt: is no field; the prompt is the text below"))
    try:
        agent = _SPEC.validate_python({**front.fields, "prompt": document.body}, context=checks)
    except ValidationError as error:
        return faults + _explained(document, error)
    return faults or agent


def _explained(document: Document, error: ValidationError) -> list[Fault]:
    faults = []
    for detail in error.errors(include_url=False):
        place: Place = tuple(step for step in detail["loc"] if step != "[key]")
        if place in document.front.refused:
            continue
        line = document.body_line if place == ("prompt",) else document.line(place)
        faults.append(Fault(document.file, line, at(place, _message(detail))))
    return faults


def _message(detail: ErrorDetails) -> str:
    place = detail["loc"]
    match detail["type"]:
        case "missing":
            return "is missing"
        case "unexpected_keyword_argument" if len(place) == 1:
            return f"there is no such field; the fields are: {_FIELDS}"
        case "unexpected_keyword_argument":
            return "there is no such field"
        case "string_pattern_mismatch":
            return "must be lower-case letters, digits and underscores, and begin with a letter"
        case _:
            return detail["msg"].removeprefix("Value error, ")


def _repetitions(documents: Sequence[Document]) -> list[Fault]:
    """Examples that stand twice: the router would learn that one message is two agents'."""
    first: dict[str, str] = {}
    faults = []
    for document in documents:
        for place, text in document.front.texts.items():
            if place[0] != "examples" or not (said := words(text)):
                continue
            line = document.line(place)
            if said in first:
                faults.append(Fault(document.file, line, at(place, f"stands already in {first[said]}")))
            first.setdefault(said, f"{document.file}:{line}")
    return faults


def _startup_error(faults: Iterable[Fault]) -> StartupError:
    return StartupError("\n".join(map(str, sorted(faults, key=lambda fault: (fault.file, fault.line)))))
