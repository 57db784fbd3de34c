"""The prompt texts, one Markdown file each in ``prompts/``, and the system prompts made of them."""

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime, tzinfo
from functools import cache, lru_cache
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

_FOLDER = Path(__file__).resolve().parents[2] / "prompts"
_VERSION_CHARACTERS: Final = 12


@cache
def load_prompt(name: str) -> str:
    """Return the text of ``prompts/<name>.md``, unchanged between calls so that a prompt cache hits."""
    return (_FOLDER / f"{name}.md").read_text(encoding="utf-8").strip()


def hash_prompts(agent_prompts: Iterable[str]) -> str:
    """Return the version of all prompts: 12 hexadecimal digits that change with any of their texts.

    Args:
        agent_prompts: The agents' own prompts.
    """
    texts = [f"{path.stem}\n{load_prompt(path.stem)}" for path in sorted(_FOLDER.glob("*.md"))]
    content = "\0".join([*texts, *sorted(agent_prompts)])
    return hashlib.sha256(content.encode()).hexdigest()[:_VERSION_CHARACTERS]


def build_system_prompt(*parts: str, locale: str | None, time_zone: str = "") -> str:
    """Return a system prompt: its parts, the language to answer in, and the day.

    The day comes last and has no time, so that the prompt stays the same for a day and a provider's prompt
    cache hits.

    Args:
        parts: The texts in their order; empty ones are left out.
        locale: BCP 47 tag of the language to answer in; ``None``: that of the message.
        time_zone: IANA name of the contact's time zone; empty: unknown.
    """
    language = f"Whatever the language of the task, answer in {locale!r} (BCP 47)." if locale else ""
    return "\n\n".join(filter(None, [*parts, language, describe_day(time_zone)]))


def describe_day(time_zone: str) -> str:
    """Return a sentence with weekday and date where the contact is, or in UTC if that is unknown."""
    zone = find_zone(time_zone)
    if zone is None:
        return f"Today is {_format_day(get_current_time())} (UTC). The customer's time zone is not known."
    return f"Today is {_format_day(get_current_time(), zone)}. The customer's time zone is {time_zone}."


def describe_time(time_zone: str) -> str:
    """Return a sentence with the time where the contact is, or in UTC if that is unknown."""
    zone = find_zone(time_zone)
    name = time_zone if zone else "UTC"
    return f"It is {get_current_time().astimezone(zone or UTC):%H:%M} in {name}."


def get_current_time() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)


def _format_day(now: datetime, zone: tzinfo = UTC) -> str:
    local = now.astimezone(zone)
    return f"{local:%A}, {local.day} {local:%B %Y}"


@lru_cache(maxsize=1_000)
def find_zone(name: str) -> ZoneInfo | None:
    """Return the time zone; ``None`` for a name that is empty or unknown, as the CRM may write anything.

    Its first use reads a file.
    """
    try:
        return ZoneInfo(name) if name else None
    except (KeyError, OSError, ValueError):
        return None
