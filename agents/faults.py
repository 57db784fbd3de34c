"""What is wrong in an agent's file, and where."""

from dataclasses import dataclass

# Where a value stands in the front matter, e.g. ("tools", 1); () is the whole.
Place = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault in a file.

    Attributes:
        file: The file's name.
        line: Counted from 1.
        what: What is wrong and what would be right.
    """

    file: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.what}"


def at(place: Place, what: str) -> str:
    """The fault with the place it is at: ``tools[1]: …``."""
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place).lstrip(".")
    return f"{path}: {what}" if path else what
