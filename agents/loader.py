"""Load the specialised agents from their Markdown files and report every error with its file and line."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.reader import ReaderError

from agents.escalation import normalize_words
from agents.spec import AgentSpec, FileChecks
from core.errors import StartupError

FOLDER = Path(__file__).resolve().parent
# The agent that answers when no other fits.
FALLBACK = "general"

_README = "README.md"
_OUT_OF_SCOPE_FILE = "out_of_scope.txt"
_FENCE = "---"
_FIELDS = ", ".join(name for name in AgentSpec.model_fields if name != "prompt")

# Where a value is in the front matter, for example ("tools", 1).
Location = tuple[str | int, ...]


class Problem(NamedTuple):
    """An error in a file; ``line`` counts from 1."""

    file: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}"


@dataclass(frozen=True, slots=True)
class Document:
    """A Markdown file that could be parsed.

    Attributes:
        file: The file's name.
        front_matter: The fields, which know their lines.
        body: The text below the front matter.
        body_line: The first line of the body.
    """

    file: str
    front_matter: CommentedMap
    body: str
    body_line: int

    def report(self, location: Location, message: str) -> Problem:
        """Return a problem at the line of a value, or of the nearest value that contains it."""
        path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location)
        line = self.body_line if location == ("prompt",) else self._find_line(location)
        return Problem(self.file, line, f"{path.lstrip('.')}: {message}")

    def _find_line(self, location: Location) -> int:
        line = 0
        value: Any = self.front_matter
        for step in location:
            if isinstance(value, CommentedMap) and step in value:
                line = value.lc.key(step)[0]
            elif isinstance(value, CommentedSeq) and isinstance(step, int):
                line = value.lc.item(step)[0]
            else:
                break
            value = value[step]
        return int(line) + 1


def load_agents(folder: Path = FOLDER, *, tools: Collection[str]) -> Mapping[str, AgentSpec]:
    """Load the agents of a folder: one from each ``*.md`` file except the README.

    Args:
        folder: The folder with the files.
        tools: Names of the tools that exist.

    Returns:
        The agents by name, sorted.

    Raises:
        StartupError: Some files are invalid; the message has one line ``file:line: message`` per error.
    """
    paths = sorted(path for path in folder.glob("*.md") if path.name != _README)
    if not paths:
        raise StartupError(f"there are no agents in {str(folder)!r}: it must contain a file NAME.md for each")
    parsed = [_parse_document(path) for path in paths]
    documents = [document for document in parsed if isinstance(document, Document)]
    problems = [problem for problem in parsed if isinstance(problem, Problem)]
    agents: dict[str, AgentSpec] = {}
    for document in documents:
        checks = FileChecks(name=document.file.removesuffix(".md"), tools=tools)
        fields = {**document.front_matter, "prompt": document.body}
        if "prompt" in document.front_matter:
            line = document.front_matter.lc.key("prompt")[0] + 1
            problems.append(
                Problem(document.file, line, "prompt: is not a field; the prompt is the text below")
            )
        try:
            agents[checks["name"]] = AgentSpec.model_validate(fields, context=checks)
        except ValidationError as error:
            problems += [_explain(document, detail) for detail in error.errors(include_url=False)]
    problems += _find_repeated_examples(documents)
    if not any(path.stem == FALLBACK for path in paths):
        problems.append(Problem(f"{FALLBACK}.md", 1, "this agent must exist: it answers what no other does"))
    if problems:
        raise StartupError("\n".join(str(problem) for problem in sorted(problems)))
    return agents


def load_out_of_scope_messages(folder: Path = FOLDER) -> tuple[str, ...]:
    """Load messages that no agent serves; the router learns from them when to abstain.

    Raises:
        StartupError: The file cannot be read or contains no message.
    """
    text = _read_text(folder / _OUT_OF_SCOPE_FILE)
    if isinstance(text, Problem):
        raise StartupError(str(text))
    rows = (row.strip() for row in text.split("\n"))
    messages = tuple(row for row in rows if row and not row.startswith("#"))
    if not messages:
        raise StartupError(f"{_OUT_OF_SCOPE_FILE}:1: there are no messages; write one per line")
    return messages


def _read_text(path: Path) -> str | Problem:
    """Return a file's text with LF line endings."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        return Problem(path.name, line, "the file is not UTF-8 text; save it as UTF-8")
    except OSError as error:
        return Problem(path.name, 1, f"the file cannot be read: {error.strerror}")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _parse_document(path: Path) -> Document | Problem:
    text = _read_text(path)
    if isinstance(text, Problem):
        return text
    # Not splitlines(): a form feed in a text does not end a line of the file.
    rows = text.split("\n")
    if rows[0].rstrip() != _FENCE:
        return Problem(path.name, 1, f"the front matter must begin here with a line {_FENCE!r}")
    end = next((number for number, row in enumerate(rows[1:], 1) if row.rstrip() == _FENCE), None)
    if end is None:
        return Problem(path.name, 1, f"the front matter that begins here is not closed by a line {_FENCE!r}")
    # The empty first row makes YAML's lines those of the file.
    front_matter = _parse_yaml(path.name, "\n".join(["", *rows[1:end]]))
    if isinstance(front_matter, Problem):
        return front_matter
    return Document(path.name, front_matter, "\n".join(rows[end + 1 :]), min(end + 2, len(rows)))


def _parse_yaml(file: str, text: str) -> CommentedMap | Problem:
    def problem(position: int, message: str) -> Problem:
        return Problem(file, text.count("\n", 0, position) + 1, f"the YAML cannot be read: {message}")

    # YAML ends a line at these, editors do not: the line numbers would differ.
    if separator := re.search("[\x85\u2028\u2029]", text):
        return problem(separator.start(), f"it contains the character U+{ord(separator[0]):04X}")
    try:
        loaded: Any = YAML(typ="rt", pure=True).load(text) or CommentedMap()
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        return problem(mark.index if mark else 0, str(error.problem or error.context))
    except ReaderError as error:
        return problem(error.position, f"it contains the character U+{error.character:04X}")
    except Exception as error:  # noqa: BLE001 - ruamel.yaml passes on what its constructors raise
        return problem(0, str(error) or type(error).__name__)
    if isinstance(loaded, CommentedMap):
        return loaded
    line = text.count("\n", 0, len(text) - len(text.lstrip())) + 1
    return Problem(file, line, "the front matter must consist of fields, each written 'name: value'")


def _explain(document: Document, detail: ErrorDetails) -> Problem:
    location: Location = tuple(step for step in detail["loc"] if step != "[key]")
    match detail["type"]:
        case "missing":
            message = "is missing"
        case "extra_forbidden" if len(location) == 1:
            message = f"there is no such field; the fields are: {_FIELDS}"
        case "extra_forbidden":
            message = "there is no such field"
        case "string_pattern_mismatch":
            message = "must be lower-case letters, digits and underscores, and begin with a letter"
        case "string_type" if not isinstance(detail["input"], list | dict):
            message = "must be text; if it is meant as text, put it in quotes"
        case _:
            message = detail["msg"].removeprefix("Value error, ")
    return document.report(location, message)


def _find_repeated_examples(documents: Sequence[Document]) -> Iterator[Problem]:
    """Yield a problem for each repeated example: the router would learn that it belongs to two agents."""
    first_places: dict[str, str] = {}
    for document in documents:
        examples = document.front_matter.get("examples")
        for language, texts in examples.items() if isinstance(examples, dict) else ():
            for index, text in enumerate(texts if isinstance(texts, list) else ()):
                if not isinstance(text, str) or not (words := normalize_words(text)):
                    continue
                found = document.report(("examples", language, index), "")
                if words in first_places:
                    yield found._replace(message=f"{found.message}repeats {first_places[words]}")
                first_places.setdefault(words, f"{document.file}:{found.line}")
