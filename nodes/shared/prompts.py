"""The prompt texts, one Markdown file each in ``prompts/``."""

from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).resolve().parents[2] / "prompts"


@cache
def load_prompt(name: str) -> str:
    """Return the text of ``prompts/<name>.md``, unchanged between calls so that a prompt cache hits."""
    return (_FOLDER / f"{name}.md").read_text(encoding="utf-8").strip()


def add_locale(system: str, locale: str | None) -> str:
    """Append the language to answer in to a system prompt, where the run has one."""
    if not locale:
        return system
    return f"{system}\n\nWhatever the language of the task, answer in {locale!r} (BCP 47)."
