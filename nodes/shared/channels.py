"""Channels that several states have."""

from collections.abc import Sequence, Sized
from typing import Annotated, Any, ClassVar, TypeAlias, TypeVar

from langchain_core.messages import (
    AnyMessage,
    BaseMessage,
    BaseMessageChunk,
    RemoveMessage,
    convert_to_messages,
    message_chunk_to_message,
)
from langgraph.channels import DeltaChannel
from langgraph.graph.message import REMOVE_ALL_MESSAGES

from core.texts import make_storable

Value = TypeVar("Value", bound=Sized)


def latest(_: str, new: str) -> str:
    """The newer text, as it can be kept: a checkpoint holds a text as ``jsonb``."""
    return make_storable(new)


StoredText: TypeAlias = Annotated[str, latest]


def merge_messages(kept: Sequence[AnyMessage], writes: Sequence[Any]) -> list[AnyMessage]:
    """Add what was written to what is kept; what was written in several steps may be added at once.

    The rules of LangGraph's ``add_messages``: a message replaces the one with its id in its place, a
    ``RemoveMessage`` takes it out, ``REMOVE_ALL_MESSAGES`` takes out everything before it. One differs, as
    a thread must stay readable whatever was written to it: removing what is not there does nothing.

    Args:
        kept: The messages so far; not changed.
        writes: Oldest first; each a message, a list of them, or what LangChain makes messages of.
    """
    merged: list[AnyMessage | None] = list(kept)
    place: dict[str | None, int] = {message.id: index for index, message in enumerate(kept) if message.id}
    for message in _messages(writes):
        known = place.get(message.id)
        if isinstance(message, RemoveMessage):
            if message.id == REMOVE_ALL_MESSAGES:
                merged, place = [], {}
            elif known is not None:
                # Written again, it is a new message and comes last.
                merged[known] = None
                del place[message.id]
        elif known is not None:
            merged[known] = message
        else:
            if message.id:
                place[message.id] = len(merged)
            merged.append(message)
    return [message for message in merged if message is not None]


def _messages(writes: Sequence[Any]) -> list[Any]:
    flat = [item for write in writes for item in (write if isinstance(write, list) else [write])]
    messages = flat if all(isinstance(item, BaseMessage) for item in flat) else convert_to_messages(flat)
    return [
        message_chunk_to_message(message) if isinstance(message, BaseMessageChunk) else message
        for message in messages
    ]


class GrowingChannel(DeltaChannel[Value]):
    """What grows, of which each checkpoint keeps only the new, and now and then one keeps it all.

    A full value in every checkpoint makes a thread grow with the square of its steps. A snapshot each fixed
    number of updates only divides that. Here a snapshot waits until the updates since the last are also a
    share of what is kept, so that all snapshots together stay a small multiple of it, and a read replays at
    most that share of it. ``benchmarks/README.md`` has the numbers the two constants were chosen by.
    """

    __slots__ = ()

    MIN_UPDATES: ClassVar[int] = 50
    SHARE: ClassVar[int] = 4

    @property
    def snapshot_frequency(self) -> int:
        """Updates after which LangGraph writes the next snapshot, at the present length."""
        kept = len(self.value) if self.is_available() else 0
        return max(self.MIN_UPDATES, kept // self.SHARE)

    @snapshot_frequency.setter
    def snapshot_frequency(self, _: int) -> None:
        # The parent's constructor and copies set it; it follows from the length alone.
        pass


class MessagesChannel(GrowingChannel[list[AnyMessage]]):
    """Messages, which ``add_messages`` would write whole into every checkpoint that adds to them."""

    __slots__ = ()


# What every state's ``messages`` are. Threads written with ``add_messages`` are read as they are: their last
# full list counts as a snapshot.
Messages: TypeAlias = Annotated[list[AnyMessage], MessagesChannel(merge_messages)]
