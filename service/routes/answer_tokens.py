"""The tokens of an answer that is made inside structured output."""

import json
import re

# A character of a JSON string, or an escaped one; of a surrogate pair, both halves (RFC 8259, section 7).
_CHARACTER = re.compile(
    r'[^\\]|\\["\\/bfnrt]|\\u(?![dD][89a-fA-F])[\da-fA-F]{4}'
    r"|\\u[dD][89abAB][\da-fA-F]{2}\\u[dD][c-fC-F][\da-fA-F]{2}",
    re.DOTALL,
)


class FieldTokens:
    """Follows one string field of a JSON object while its text comes in pieces.

    Each character is read once, so that a long answer costs no more a piece than a short one.

    Args:
        field: Name of the top-level field.
    """

    def __init__(self, field: str) -> None:
        self._field = field
        self._depth = 0
        self._in_string = False
        self._escaped = False
        # The last string at the top level, as it is written; the field's name is one.
        self._string = ""
        self._value_is_next = False
        # Of the value: what of it is no whole character yet. None before and after the value.
        self._pending: str | None = None
        self._done = False

    def feed(self, piece: str) -> str:
        """What the piece adds to the field's value; empty while it adds nothing.

        All that is returned, put together, is the field's value in the whole text. Text that is no JSON
        adds nothing.
        """
        return "".join(map(self._read, piece))

    def _read(self, character: str) -> str:
        if self._done:
            return ""
        if self._in_string:
            return self._read_in_string(character)
        if character == '"':
            self._in_string, self._string = True, ""
            self._pending = "" if self._value_is_next else None
        elif character == ":":
            self._value_is_next = self._depth == 1 and self._is_field(self._string)
        elif not character.isspace():
            self._value_is_next = False
            self._depth += (character in "{[") - (character in "}]")
        return ""

    def _read_in_string(self, character: str) -> str:
        if character == '"' and not self._escaped:
            self._in_string, self._done = False, self._pending is not None
            return ""
        self._escaped = character == "\\" and not self._escaped
        if self._pending is not None:
            return self._decoded(character)
        if self._depth == 1:
            self._string += character
        return ""

    def _decoded(self, character: str) -> str:
        pending = f"{self._pending}{character}"
        if not _CHARACTER.fullmatch(pending):
            self._pending = pending
            return ""
        self._pending = ""
        return str(json.loads(f'"{pending}"', strict=False))

    def _is_field(self, written: str) -> bool:
        try:
            return bool(json.loads(f'"{written}"', strict=False) == self._field)
        except ValueError:
            return False
