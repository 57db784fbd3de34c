"""Turns of a conversation as the lines an agent reads."""

from collections.abc import Sequence
from typing import Final

from langchain_core.messages import AnyMessage, HumanMessage

from core.packing import Item
from core.texts import cut

_TURN_CHARACTERS: Final = 2_000


def turn_items(said: Sequence[AnyMessage]) -> tuple[Item, ...]:
    """What was said, oldest first."""
    return tuple(Item(message.id or str(number), turn_line(message)) for number, message in enumerate(said))


def turn_line(message: AnyMessage) -> str:
    """Who said what."""
    who = "customer" if isinstance(message, HumanMessage) else "we"
    return f"{who}: {cut(message.text, _TURN_CHARACTERS)}"
