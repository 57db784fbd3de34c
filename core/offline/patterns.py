"""Examples of regular expressions: a string that matches, for the patterns schemas commonly have."""

import re
from typing import Final

_CLASSES: Final = {"d": "0", "w": "a", "s": " ", "D": "a", "W": "-", "S": "a"}
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r"}
_PRINTABLE: Final = "aA0-_ " + "".join(chr(code) for code in range(33, 127))
_MOST_REPEATS: Final = 2_000


def example_of(pattern: str, least: int = 0) -> str | None:
    """A string the pattern matches, about ``least`` characters long; ``None`` where none was found."""
    for repeats in (0, 1, least, max(least - len(pattern), 0)):
        writer = _Writer(pattern, min(repeats, _MOST_REPEATS))
        text = writer.alternatives()
        if writer.at_end and len(text) >= least and _matches(pattern, text):
            return text
    return None


def _matches(pattern: str, text: str) -> bool:
    try:
        return re.search(pattern, text) is not None
    except re.error:
        return False


class _Writer:
    """Reads a pattern from left to right and writes an example of it."""

    def __init__(self, pattern: str, repeats: int) -> None:
        self._pattern = pattern
        self._repeats = repeats
        self._at = 0

    @property
    def at_end(self) -> bool:
        return self._at >= len(self._pattern)

    def alternatives(self) -> str:
        """The first alternative's example; the others are read over."""
        first = self._sequence()
        while self._peek() == "|":
            self._at += 1
            self._sequence()
        return first

    def _peek(self) -> str:
        return self._pattern[self._at : self._at + 1]

    def _take(self) -> str:
        self._at += 1
        return self._pattern[self._at - 1 : self._at]

    def _sequence(self) -> str:
        written = ""
        while self._peek() and self._peek() not in "|)":
            atom = self._atom()
            written += atom * self._count()
        return written

    def _atom(self) -> str:
        character = self._take()
        if character == "(":
            return self._group()
        if character == "[":
            return self._character_class()
        if character == "\\":
            return self._escaped()
        if character in "^$":
            return ""
        return "a" if character == "." else character

    def _group(self) -> str:
        skipped = False
        if self._peek() == "?":
            opened = re.compile(r"\?(?::|P?<\w+>|[=!]|<[=!])").match(self._pattern, self._at)
            skipped = bool(opened and opened.group()[1:] in {"=", "!", "<=", "<!"})
            self._at = opened.end() if opened else self._at + 1
        inner = self.alternatives()
        if self._peek() == ")":
            self._at += 1
        return "" if skipped else inner

    def _escaped(self) -> str:
        character = self._take()
        if character in "bBAZ":
            return ""
        return _CLASSES.get(character, _ESCAPES.get(character, character))

    def _character_class(self) -> str:
        start = self._at - 1
        if self._peek() == "^":
            self._at += 1
        if self._peek() == "]":
            self._at += 1
        while self._peek() and self._peek() != "]":
            self._at += 2 if self._peek() == "\\" else 1
        self._at += 1
        try:
            accepted = re.compile(self._pattern[start : self._at])
        except re.error:
            return "a"
        return next((character for character in _PRINTABLE if accepted.match(character)), "a")

    def _count(self) -> int:
        character = self._peek()
        if character not in "*+?{" or not character:
            return 1
        self._at += 1
        if character == "{":
            count = self._braces()
        else:
            count = {"*": self._repeats, "+": max(self._repeats, 1), "?": 0}[character]
        if self._peek() == "?":
            self._at += 1
        return count

    def _braces(self) -> int:
        bounds = re.compile(r"(\d*)(,?)(\d*)\}").match(self._pattern, self._at)
        if not bounds:
            return 1
        self._at = bounds.end()
        least = int(bounds.group(1) or 0)
        if not bounds.group(2):
            return min(least, _MOST_REPEATS)
        most = int(bounds.group(3)) if bounds.group(3) else max(least, self._repeats)
        return min(max(least, min(self._repeats, most)), _MOST_REPEATS)
