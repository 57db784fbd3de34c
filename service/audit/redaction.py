"""Redact what the audit trail stores of arguments: their shape stays, personal data goes.

Values that are not known to be harmless are removed, so a new field cannot leak. Booleans, small numbers,
times, words of closed vocabularies and identifiers stay. Of any other text its length stays, and of a long
one also a hash, by which whoever has the text can prove that it was this one. A short text gets no hash,
because it could be guessed.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias
from uuid import UUID

Json: TypeAlias = Any

# Fields whose values come from a closed vocabulary.
VOCABULARY = frozenset(
    {"action", "decision", "graph", "kind", "language", "method", "model", "outcome", "policy", "severity"}
    | {"scopes", "source", "stage", "status", "team", "type"}
)
# A number this long may be a telephone number, or another number that identifies a person.
_PERSONAL_DIGITS = 7
_LARGEST_NUMBER = 10**_PERSONAL_DIGITS
# A shorter text could be guessed from its hash.
_MIN_HASHED_CHARACTERS = 64
_HASH_CHARACTERS = 16
_MAX_ITEMS = 50
_MAX_DEPTH = 6

_WORD = re.compile(r"[A-Za-z][A-Za-z_-]{0,39}( [A-Za-z_-]{1,39}){0,2}")
_TIME = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?)?(Z|[+-]\d\d:\d\d)?")
_FIELD = re.compile(r"[a-z][a-z_]{0,39}")
_IDENTIFIER = re.compile(r"(?=\D*\d)[A-Za-z][A-Za-z_]{0,15}[-_.]?[A-Za-z0-9]{1,24}")
_COLLECTION = re.compile(r"[a-z]{1,20}(-[a-z]{1,20}){0,3}")


def redact(value: Json, field: str = "", *, depth: int = 0) -> Json:
    """Return the value as the audit trail may store it: JSON of the same shape.

    Args:
        value: JSON.
        field: The field that holds the value; empty: none.
        depth: How deeply the value is nested.
    """
    match value:
        case None | bool():
            return value
        case int() | float():
            # Two decimals cover amounts of money; a longer fraction may be a number of another kind.
            return round(value, 2) if abs(value) < _LARGEST_NUMBER else "number"
        case str():
            return _redact_text(value, field)
        case Mapping() if depth < _MAX_DEPTH:
            items = [(str(key), item) for key, item in value.items()][:_MAX_ITEMS]
            return {_redact_key(key): redact(item, key, depth=depth + 1) for key, item in items}
        case Sequence() if depth < _MAX_DEPTH:
            return [redact(item, field, depth=depth + 1) for item in value[:_MAX_ITEMS]]
        case _:
            return "cut"


def is_identifier(text: str) -> bool:
    """Return whether a text is a system's identifier: a UUID, or letters and a short number.

    A name has no digit, an address has other characters, a telephone number has more digits.
    """
    if _is_uuid(text):
        return True
    digits = sum(character.isdigit() for character in text)
    return bool(_IDENTIFIER.fullmatch(text)) and digits < _PERSONAL_DIGITS


def _redact_text(text: str, field: str) -> Json:
    if field in VOCABULARY and _WORD.fullmatch(text):
        return text
    if (field == "id" or field.endswith("_id")) and is_identifier(text):
        return text
    if field.endswith(("_at", "_until")) and _TIME.fullmatch(text):
        return text
    if field == "path":
        return _redact_path(text)
    if len(text) < _MIN_HASHED_CHARACTERS:
        return {"characters": len(text)}
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return {"characters": len(text), "sha256": digest[:_HASH_CHARACTERS]}


def _is_uuid(text: str) -> bool:
    try:
        return text.lower() in {str(UUID(text)), UUID(text).hex}
    except ValueError:
        return False


def _redact_path(path: str) -> str:
    """Keep collections and identifiers, which alternate in a path, and replace anything else."""
    return "".join(
        f"/{segment if (is_identifier(segment) if index % 2 else _COLLECTION.fullmatch(segment)) else '…'}"
        for index, segment in enumerate(path.strip("/").split("/"))
    )


def _redact_key(key: str) -> str:
    """Keep a field's name; a key that is not one may be anything, e.g. a customer's name."""
    return key if _FIELD.fullmatch(key) else "field"
