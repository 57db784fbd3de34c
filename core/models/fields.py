"""Follow one field of a JSON object while the object's text comes in pieces."""

import json
import re

# A character of a JSON string, or an escaped one; of a surrogate pair, both halves (RFC 8259, section 7).
_JSON_CHARACTER = re.compile(
    r'[^\\]|\\["\\/bfnrt]|\\u(?![dD][89a-fA-F])[\da-fA-F]{4}'
    r"|\\u[dD][89abAB][\da-fA-F]{2}\\u[dD][c-fC-F][\da-fA-F]{2}",
    re.DOTALL,
)


class FieldTokens:
    """Follow one string field of a JSON object while the object's text comes in pieces.

    Each character is read once, so that a piece of a long answer costs no more than one of a short answer.

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
        # The characters of the value that do not form a whole one yet. None before and after the value.
        self._pending: str | None = None
        self._done = False

    def feed(self, piece: str) -> str:
        """Return what the piece adds to the field's value; empty while it adds nothing.

        All returned pieces together are the field's value in the whole text. Text that is not JSON adds
        nothing.
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
            return self._decode(character)
        if self._depth == 1:
            self._string += character
        return ""

    def _decode(self, character: str) -> str:
        pending = f"{self._pending}{character}"
        if not _JSON_CHARACTER.fullmatch(pending):
            self._pending = pending
            return ""
        self._pending = ""
        return str(json.loads(f'"{pending}"', strict=False))

    def _is_field(self, written: str) -> bool:
        try:
            return bool(json.loads(f'"{written}"', strict=False) == self._field)
        except ValueError:
            return False
