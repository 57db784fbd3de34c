"""Texts of others in a prompt: on a line of their own, or fence."""

import re
from collections.abc import Iterable
from typing import Annotated, TypeAlias

from pydantic import AfterValidator, StringConstraints


def _on_one_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be one line, without control characters")
    return text


Line: TypeAlias = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1), AfterValidator(_on_one_line)
]


def fence(name: str, text: str) -> str:
    """The text between ``<name>`` marks, of which it can hold none itself."""
    inside = re.sub(rf"<(?=\s*/?\s*{name}\b)", "&lt;", text, flags=re.IGNORECASE)
    return f"<{name}>\n{inside}\n</{name}>"


def differ(names: Iterable[str]) -> bool:
    """Whether no two names are the same, in any case."""
    folded = [name.casefold() for name in names]
    return len(set(folded)) == len(folded)
