"""Messages as content blocks, as the streaming protocol of LangGraph's clients has them.

A message begins (``message-start``), has blocks (``content-block-start``, ``-delta``, ``-finish``) and ends
(``message-finish``). The types are those of the package ``langchain-protocol``.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias

from langchain_core.language_models._compat_bridge import message_to_events
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata, add_usage

from core.models.streams import find_reply_id

Namespace: TypeAlias = tuple[str, ...]
MessageEvent: TypeAlias = dict[str, Any]
Block: TypeAlias = dict[str, Any]

_CALLS: Final = frozenset({"tool_call", "tool_call_chunk", "invalid_tool_call"})
# In the metadata of what a model wrote.
_MODEL_KEY: Final = "ls_model_type"
# The field of a block that grows with its deltas, and the name of the delta.
_GROWING: Final = {
    "text": ("text", "text-delta"),
    "reasoning": ("reasoning", "reasoning-delta"),
    "tool_call_chunk": ("args", "tool-call-delta"),
    "server_tool_call_chunk": ("args", "tool-call-delta"),
}


class MessageEvents:
    """Make the events of the messages and chunks of a run."""

    def __init__(self) -> None:
        self._open: dict[tuple[Namespace, str], _OpenMessage] = {}
        self._finished: set[str] = set()

    def add(
        self, namespace: Namespace, message: BaseMessage, metadata: Mapping[str, Any]
    ) -> Iterator[MessageEvent]:
        """Yield the events of a chunk, or of a message that came whole."""
        # Our models stream their thoughts beside the reply that they belong to, and JSON that nobody reads.
        if "structured" in (metadata.get("tags") or ()):
            return
        key = (namespace, find_reply_id(message.id or ""))
        if not isinstance(message, AIMessageChunk):
            # What a node made itself, such as the result of a tool, is in the values.
            if not isinstance(message, AIMessage) or _MODEL_KEY not in metadata:
                return
            if opened := self._open.pop(key, None):
                yield from opened.finish()
            elif key[1] not in self._finished:
                yield from _convert_whole(message, metadata)
            return
        if key not in self._open:
            self._open[key] = _OpenMessage(key[1], metadata)
            yield self._open[key].start()
        yield from self._open[key].add(message)
        if message.chunk_position == "last":
            yield from self._close(key)

    def finish(self, namespace: Namespace) -> Iterator[MessageEvent]:
        """Yield the ends of messages of a namespace, or below it, that did not say their end."""
        for key in [key for key in self._open if key[0][: len(namespace)] == namespace]:
            yield from self._close(key)

    def _close(self, key: tuple[Namespace, str]) -> Iterator[MessageEvent]:
        self._finished.add(key[1])
        yield from self._open.pop(key).finish()


class _OpenMessage:
    """A message of which chunks come.

    Args:
        message_id: Its id.
        metadata: Of the model run that writes it.
    """

    def __init__(self, message_id: str, metadata: Mapping[str, Any]) -> None:
        self._id = message_id
        self._metadata = metadata
        self._blocks: dict[Any, tuple[int, Block]] = {}
        self._response_metadata: dict[str, Any] = {}
        self._usage: UsageMetadata | None = None

    def start(self) -> MessageEvent:
        """Return the first event."""
        return _build_start(self._id, self._metadata)

    def add(self, chunk: AIMessageChunk) -> Iterator[MessageEvent]:
        """Yield the events of a chunk."""
        self._response_metadata |= chunk.response_metadata
        if chunk.usage_metadata:
            self._usage = add_usage(self._usage, chunk.usage_metadata)
        for position, block in enumerate(_list_blocks(chunk)):
            kind = block["type"]
            key = (kind, position if block.get("index") is None else block["index"])
            field, delta = _GROWING.get(kind, ("", ""))
            if key not in self._blocks:
                self._blocks[key] = (len(self._blocks), block)
                begun = {**block, field: ""} if field else block
                yield self._build("content-block-start", self._blocks[key][0], content=begun)
            elif field:
                grown = self._blocks[key][1]
                given = {name: value for name, value in block.items() if value is not None}
                text = (grown.get(field) or "") + (block.get(field) or "")
                grown.update(given | {field: text, "type": grown["type"]})
            else:
                self._blocks[key] = (self._blocks[key][0], block)
            if field and block.get(field):
                index = self._blocks[key][0]
                yield self._build("content-block-delta", index, delta={"type": delta, field: block[field]})

    def finish(self) -> Iterator[MessageEvent]:
        """Yield the last events."""
        for index, block in self._blocks.values():
            yield self._build("content-block-finish", index, content=_finish_block(block))
        end: MessageEvent = {"event": "message-finish", "message_id": self._id}
        if self._usage:
            end["usage"] = self._usage
        if self._response_metadata:
            end["metadata"] = self._response_metadata
        yield end

    def _build(self, name: str, index: int, **fields: Any) -> MessageEvent:
        return {"event": name, "message_id": self._id, "index": index, **fields}


def _list_blocks(chunk: AIMessageChunk) -> list[Block]:
    """Return the blocks of a chunk; LangChain takes pieces of tool calls beside a text for whole calls."""
    if isinstance(chunk.content, str) and not (chunk.additional_kwargs or chunk.tool_call_chunks):
        # Most chunks; LangChain's way to the same takes longer than all else that becomes of a chunk.
        return [{"type": "text", "text": chunk.content}] if chunk.content else []
    blocks: list[Block] = [dict(block) for block in chunk.content_blocks]
    others = [block for block in blocks if block["type"] not in _CALLS]
    return [*others, *({**call, "type": "tool_call_chunk"} for call in chunk.tool_call_chunks)]


def _convert_whole(message: BaseMessage, metadata: Mapping[str, Any]) -> Iterator[MessageEvent]:
    message_id = message.id or ""
    for event in message_to_events(message, message_id=message_id):
        if event["event"] == "message-start":
            yield _build_start(message_id, metadata)
        else:
            yield {**event, "message_id": message_id}


def _build_start(message_id: str, metadata: Mapping[str, Any]) -> MessageEvent:
    known = {
        "provider": metadata.get("ls_provider"),
        "model": metadata.get("ls_model_name"),
        "model_type": metadata.get("ls_model_type"),
        "langgraph_node": metadata.get("langgraph_node"),
        "tags": metadata.get("tags"),
    }
    return {
        "event": "message-start",
        "role": "ai",
        "id": message_id,
        "message_id": message_id,
        "metadata": {name: value for name, value in known.items() if value is not None},
    }


def _finish_block(block: Block) -> Block:
    """Return a block that is complete; the arguments of a tool call are parsed."""
    if block["type"] not in {"tool_call_chunk", "server_tool_call_chunk"}:
        return block
    kind = block["type"].removesuffix("_chunk")
    try:
        arguments = json.loads(block.get("args") or "{}")
    except ValueError:
        arguments = None
    if isinstance(arguments, dict):
        return {"type": kind, "id": block.get("id"), "name": block.get("name") or "", "args": arguments}
    error = "the arguments are no JSON object"
    return {**block, "type": "invalid_tool_call", "error": error}
