"""The tokens of an answer that is made inside structured output."""

from langchain_core.utils.json import parse_partial_json

_HIGH_SURROGATES = ("\ud800", "\udbff")


class FieldTokens:
    """Follows one string field of a JSON object while its text comes in pieces.

    Args:
        field: Name of the top-level field.
    """

    def __init__(self, field: str) -> None:
        self._field = field
        self._text = ""
        self._given = ""

    def feed(self, piece: str) -> str:
        """What the piece adds to the field's value; empty while it adds nothing.

        All that is returned, put together, is the field's value in the whole text.
        """
        self._text += piece
        try:
            parsed = parse_partial_json(self._text)
        except ValueError:
            return ""
        value = parsed.get(self._field) if isinstance(parsed, dict) else None
        if not isinstance(value, str):
            return ""
        # Half of an escaped pair is not a character yet.
        if value and _HIGH_SURROGATES[0] <= value[-1] <= _HIGH_SURROGATES[1]:
            value = value[:-1]
        if not value.startswith(self._given):
            return ""
        added = value[len(self._given) :]
        self._given = value
        return added
