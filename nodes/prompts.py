"""The prompts, one Markdown file each in ``prompts/``."""

from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).resolve().parent.parent / "prompts"


@cache
def prompt(name: str) -> str:
    """The text of ``prompts/<name>.md``, the same string each time, so that a provider's cache hits."""
    return (_FOLDER / f"{name}.md").read_text(encoding="utf-8").strip()
