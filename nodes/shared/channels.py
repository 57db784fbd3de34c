"""State channels and reducers that several patterns use."""

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


def keep_latest(_: str, new: str) -> str:
    """Reducer: the newer text, without what Postgres cannot store in the checkpoint's ``jsonb``."""
    return make_storable(new)


StoredText: TypeAlias = Annotated[str, keep_latest]


def merge_messages(current: Sequence[AnyMessage], writes: Sequence[Any]) -> list[AnyMessage]:
    """Reducer: apply the writes of one or several steps to the messages so far.

    Follows LangGraph's ``add_messages``: a message replaces the one with its id in place, a
    ``RemoveMessage`` removes it, ``REMOVE_ALL_MESSAGES`` removes everything before it. The one difference
    keeps a thread readable whatever was written to it: removing a message that is not there does nothing.

    Args:
        current: The messages so far; not modified.
        writes: Oldest first; each a message, a list of messages, or what LangChain converts to messages.
    """
    merged: list[AnyMessage | None] = list(current)
    positions: dict[str | None, int] = {
        message.id: index for index, message in enumerate(current) if message.id
    }
    for message in _flatten_messages(writes):
        position = positions.get(message.id)
        if isinstance(message, RemoveMessage):
            if message.id == REMOVE_ALL_MESSAGES:
                merged, positions = [], {}
            elif position is not None:
                # Written again later, it is a new message and comes last.
                merged[position] = None
                del positions[message.id]
        elif position is not None:
            merged[position] = message
        else:
            if message.id:
                positions[message.id] = len(merged)
            merged.append(message)
    return [message for message in merged if message is not None]


def _flatten_messages(writes: Sequence[Any]) -> list[Any]:
    flat = [item for write in writes for item in (write if isinstance(write, list) else [write])]
    messages = flat if all(isinstance(item, BaseMessage) for item in flat) else convert_to_messages(flat)
    return [
        message_chunk_to_message(message) if isinstance(message, BaseMessageChunk) else message
        for message in messages
    ]


class GrowingChannel(DeltaChannel[Value]):
    """A growing value: checkpoints store its updates, and now and then a snapshot of all of it.

    A full value in every checkpoint makes a thread grow with the square of its steps, and a snapshot after
    a fixed number of updates only divides that. Here a snapshot also waits until the updates since the last
    one are a share of the value. All snapshots together thus stay a small multiple of the value, and a read
    replays at most that share. ``benchmarks/README.md`` has the measurements behind the two constants.
    """

    __slots__ = ()

    MIN_UPDATES: ClassVar[int] = 50
    SHARE: ClassVar[int] = 4

    @property
    def snapshot_frequency(self) -> int:
        """Return after how many updates LangGraph writes the next snapshot, at the present length."""
        length = len(self.value) if self.is_available() else 0
        return max(self.MIN_UPDATES, length // self.SHARE)

    @snapshot_frequency.setter
    def snapshot_frequency(self, _: int) -> None:
        # The base class sets it in its constructor and in copies; here it depends on the length alone.
        pass


class MessagesChannel(GrowingChannel[list[AnyMessage]]):
    """Messages; ``add_messages`` would write all of them into every checkpoint that adds one."""

    __slots__ = ()


# The type of ``messages`` in every state.
Messages: TypeAlias = Annotated[list[AnyMessage], MessagesChannel(merge_messages)]
