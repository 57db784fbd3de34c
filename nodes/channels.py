"""Channels that several states have."""

from typing import Annotated, TypeAlias

from core.texts import storable


def latest(_: str, new: str) -> str:
    """The newer text, as it can be kept: a checkpoint holds a text as ``jsonb``."""
    return storable(new)


StoredText: TypeAlias = Annotated[str, latest]
