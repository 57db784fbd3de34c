"""What others wrote, in a prompt: fence, on one line, or cut."""

import re


def fence(name: str, text: str) -> str:
    """The text between marks, of which it can hold none itself."""
    inside = re.sub(rf"<(?=/?\s*{name}\b)", "\u2039", text, flags=re.IGNORECASE)
    return f"<{name}>\n{inside}\n</{name}>"


def join_lines(text: str) -> str:
    """The text without line breaks, so that it cannot be taken for other lines."""
    return " ".join(text.split())


def cut(text: str, limit: int) -> str:
    """At most ``limit`` characters of the text, and how many are missing."""
    missing = len(text) - limit
    return text if missing <= 0 else f"{text[:limit]}… ({missing} more characters were cut)"
