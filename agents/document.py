"""A Markdown file: YAML front matter between two lines ``---``, and the text below."""

from dataclasses import dataclass
from pathlib import Path

from agents.faults import Fault, Place
from agents.front_matter import FrontMatter, read_front_matter

_FENCE = "---"


@dataclass(frozen=True, slots=True)
class Document:
    """A file that could be read.

    Attributes:
        file: The file's name.
        front: The front matter.
        body: What stands below it.
        body_line: The line the body begins at.
    """

    file: str
    front: FrontMatter
    body: str
    body_line: int

    def line(self, place: Place) -> int:
        """The line of a place, or of the nearest it would stand in; the first line for the whole."""
        while place and place not in self.front.lines:
            place = place[:-1]
        return self.front.lines[place] if place else 1


def read_text(path: Path) -> str | Fault:
    """A file's text with LF at the end of its lines; the fault where there is none."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        return Fault(path.name, line, "the file is not UTF-8 text; save it as UTF-8")
    except OSError as error:
        return Fault(path.name, 1, f"the file cannot be read: {error.strerror}")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_document(path: Path) -> Document | Fault:
    """Read a file; the fault where it has no front matter that can be read."""
    text = read_text(path)
    if isinstance(text, Fault):
        return text
    # Not splitlines: a form feed or U+2028 in a text ends no line of the file.
    rows = text.split("\n")
    if rows[0].rstrip() != _FENCE:
        return Fault(path.name, 1, f"a line {_FENCE!r} must open the front matter here")
    end = next((number for number, row in enumerate(rows[1:], 1) if row.rstrip() == _FENCE), None)
    if end is None:
        return Fault(path.name, 1, f"the front matter that opens here is not closed by a line {_FENCE!r}")
    # The empty first row makes YAML's lines those of the file.
    front = read_front_matter(path.name, "\n".join(["", *rows[1:end]]))
    if isinstance(front, Fault):
        return front
    return Document(path.name, front, "\n".join(rows[end + 1 :]), min(end + 2, len(rows)))
