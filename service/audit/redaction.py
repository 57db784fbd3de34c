"""What the audit keeps of arguments: that they were there and of what kind, and nothing personal.

What is not known to be harmless is taken out, so a field nobody thought of is no leak. Kept are yes and no,
small numbers, times, words of closed vocabularies and identifiers; of any other text its length, and of a
long one a hash too, by which whoever has the text can prove that it was this one. A short text has no hash:
it could be guessed.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias
from uuid import UUID

Json: TypeAlias = Any

# Fields whose values are of a closed vocabulary.
VOCABULARY = frozenset(
    {"action", "decision", "graph", "kind", "language", "method", "outcome", "policy", "severity", "source"}
    | {"scopes", "stage", "status", "team", "type"}
)
# So many digits may be a telephone number, or another number that names a person.
_TELLING_DIGITS = 7
_LARGEST_NUMBER = 10**_TELLING_DIGITS
# A text that is shorter could be guessed from its hash.
_HASHED_FROM = 64
_HASH_CHARACTERS = 16
_MOST_ITEMS = 50
_DEEPEST = 6

_WORD = re.compile(r"[A-Za-z][A-Za-z_-]{0,39}( [A-Za-z_-]{1,39}){0,2}")
_TIME = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?)?(Z|[+-]\d\d:\d\d)?")
_FIELD = re.compile(r"[a-z][a-z_]{0,39}")
_IDENTIFIER = re.compile(r"(?=\D*\d)[A-Za-z][A-Za-z_]{0,15}[-_.]?[A-Za-z0-9]{1,24}")
_COLLECTION = re.compile(r"[a-z]{1,20}(-[a-z]{1,20}){0,3}")


def redacted(value: Json, field: str = "", *, depth: int = 0) -> Json:
    """The value as the audit may keep it: JSON of the same shape.

    Args:
        value: JSON.
        field: The field it stands in; empty: in none.
        depth: How deep it stands.
    """
    match value:
        case None | bool():
            return value
        case int() | float():
            # Cents are enough; a longer fraction may be a number of another kind.
            return round(value, 2) if abs(value) < _LARGEST_NUMBER else "number"
        case str():
            return _text(value, field)
        case Mapping() if depth < _DEEPEST:
            kept = [(str(key), item) for key, item in value.items()][:_MOST_ITEMS]
            return {_key(key): redacted(item, key, depth=depth + 1) for key, item in kept}
        case Sequence() if depth < _DEEPEST:
            return [redacted(item, field, depth=depth + 1) for item in value[:_MOST_ITEMS]]
        case _:
            return "cut"


def _text(text: str, field: str) -> Json:
    if field in VOCABULARY and _WORD.fullmatch(text):
        return text
    if (field == "id" or field.endswith("_id")) and is_identifier(text):
        return text
    if field.endswith(("_at", "_until")) and _TIME.fullmatch(text):
        return text
    if field == "path":
        return _path(text)
    if len(text) < _HASHED_FROM:
        return {"characters": len(text)}
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return {"characters": len(text), "sha256": digest[:_HASH_CHARACTERS]}


def is_identifier(text: str) -> bool:
    """Whether a text is an id as systems make them: a UUID or its digits, or letters and a short number.

    A name has no digit, an address has other characters, a telephone number has more digits.
    """
    if _is_uuid(text):
        return True
    digits = sum(character.isdigit() for character in text)
    return bool(_IDENTIFIER.fullmatch(text)) and digits < _TELLING_DIGITS


def _is_uuid(text: str) -> bool:
    try:
        return text.lower() in {str(UUID(text)), UUID(text).hex}
    except ValueError:
        return False


def _path(path: str) -> str:
    """A path of collections and ids in turn; what is neither is left out."""
    segments = path.strip("/").split("/")
    return "".join(
        f"/{segment if (is_identifier(segment) if at % 2 else _COLLECTION.fullmatch(segment)) else '…'}"
        for at, segment in enumerate(segments)
    )


def _key(key: str) -> str:
    """The field's name; one that is none may be anything, a customer's name too."""
    return key if _FIELD.fullmatch(key) else "field"
