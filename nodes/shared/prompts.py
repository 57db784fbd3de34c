"""The prompts, one Markdown file each in ``prompts/``."""

from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).resolve().parents[2] / "prompts"


@cache
def prompt(name: str) -> str:
    """The text of ``prompts/<name>.md``, the same string each time, so that a provider's cache hits."""
    return (_FOLDER / f"{name}.md").read_text(encoding="utf-8").strip()


def in_locale(system: str, locale: str | None) -> str:
    """The system prompt, with the language to answer in where the run has one."""
    if not locale:
        return system
    return f"{system}\n\nWhatever the language of the task, answer in {locale!r} (BCP 47)."
