"""Publish replies while they come: reasoning and answer as streams of their own, told apart by tags.

The model is called without the caller's streaming callbacks (those of ``stream_mode="messages"``,
``astream_events`` and ``astream_log``). What it says is split, and each part reaches these callbacks as a
model run with a tag of :data:`Tag`, so that a client filters by ``tags``. Other callbacks, such as traces,
see the call itself.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, Literal, TypeAlias
from uuid import uuid4

from langchain_core.callbacks import AsyncCallbackManager, AsyncCallbackManagerForLLMRun
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import add_ai_message_chunks
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk, LLMResult
from langchain_core.runnables import RunnableConfig, ensure_config
from langchain_core.runnables.config import (
    get_async_callback_manager_for_config,
    var_child_runnable_config,
)
from pydantic import BaseModel

from core.models.echoes import find_echo
from core.models.fields import FieldTokens
from core.models.reasoning import Piece, ReplySplitter, get_reasoning

# answer: text for whoever asked. thought: reasoning, and tool calls. structured: the JSON of a plan or a
# judgement; if it has an answer field, that is streamed as an answer too.
Tag: TypeAlias = Literal["answer", "thought", "structured"]

# The field of structured replies that is streamed as an answer while the model writes it.
ANSWER_FIELD: Final = "final_answer"
# Name of the custom event that says that the answer streamed under a message id is void.
RESET_EVENT: Final = "reset"
_THOUGHT: Final = "-thought"


class StreamedAnswers:
    """The answers that were streamed within a block of code and still count.

    Args:
        outer: Those of the block around it.
    """

    def __init__(self, outer: "StreamedAnswers | None" = None) -> None:
        self._outer = outer
        self._ids: dict[str, None] = {}

    def add(self, message_id: str) -> None:
        """Note that an answer is being streamed."""
        self._ids[message_id] = None
        if self._outer is not None:
            self._outer.add(message_id)

    def discard(self, message_id: str) -> None:
        """Forget an answer that has been retracted."""
        self._ids.pop(message_id, None)
        if self._outer is not None:
            self._outer.discard(message_id)

    async def retract(self) -> None:
        """Announce that these answers are void, so that clients clear what they show of them."""
        for message_id in list(self._ids):
            self.discard(message_id)
            await _announce_reset(message_id, ensure_config())


_answers: ContextVar[StreamedAnswers | None] = ContextVar("streamed_answers", default=None)
_is_private: ContextVar[bool] = ContextVar("replies_are_private", default=False)


@contextmanager
def track_answers() -> Iterator[StreamedAnswers]:
    """Collect the answers that are streamed in a block, subgraphs included, to retract them if they fail."""
    answers = StreamedAnswers(_answers.get())
    token = _answers.set(answers)
    try:
        yield answers
    finally:
        _answers.reset(token)


@contextmanager
def private_replies() -> Iterator[None]:
    """Stream all replies of a block as thoughts: drafts, summaries, and results of single steps."""
    token = _is_private.set(True)
    try:
        yield
    finally:
        _is_private.reset(token)


class ReplyStream:
    """Publishes one attempt at a reply.

    Args:
        messages: The prompt.
        may_call_tools: Whether tools are bound.
        schema: The schema of a structured reply.

    Attributes:
        id: Id of the reply; known from its first chunk on.
    """

    def __init__(
        self,
        messages: Sequence[BaseMessage],
        *,
        may_call_tools: bool = False,
        schema: type[BaseModel] | None = None,
    ) -> None:
        self.id = ""
        outer = ensure_config()
        quiet = get_async_callback_manager_for_config(outer)
        self._is_heard = _remove_handlers(quiet, streaming=True)
        self._quiet: RunnableConfig = {**outer, "callbacks": quiet}
        self._outer = outer
        self._messages = list(messages)
        self._splitter = ReplySplitter(may_call_tools=may_call_tools)
        self._is_structured = schema is not None
        self._has_answer_field = schema is not None and ANSWER_FIELD in schema.model_fields
        self._answer_field = FieldTokens(ANSWER_FIELD)
        self._answer_tag: Tag = "thought" if _is_private.get() else "answer"
        self._channels: dict[Tag, _Channel] = {}

    @contextmanager
    def silence_call(self) -> Iterator[None]:
        """Hide the model call itself from the streaming callbacks."""
        # Not as an argument: bound models would merge it with the callbacks in the variable.
        token = var_child_runnable_config.set(self._quiet)
        try:
            yield
        finally:
            var_child_runnable_config.reset(token)

    async def take(self, chunk: AIMessage) -> None:
        """Publish what a chunk adds."""
        self.id = self.id or chunk.id or f"run-{uuid4()}"
        if not self._is_heard:
            return
        if reasoning := get_reasoning(chunk):
            await self._send_thought(reasoning)
        await self._publish(self._splitter.feed(chunk.text))
        calls = _list_call_chunks(chunk)
        if calls:
            await self._publish(self._splitter.mark_tool_call())
            tag: Tag = "structured" if self._is_structured else "thought"
            await self._send(tag, id=self.id, content="", tool_call_chunks=calls)

    async def end(self, reply: AIMessage, *, is_complete: bool) -> None:
        """Publish the rest of a reply that was read to its end, and its metadata.

        Text that was held back is judged first: what is cut off or repeats the prompt is no answer.
        """
        if self._is_heard:
            held = self._splitter.held
            pieces = self._splitter.close()
            if held and (not is_complete or find_echo(reply.text)):
                pieces = [piece for piece in pieces if piece[0] != "answer"]
            await self._publish(pieces)
            await self._send_metadata(reply)
        await self._close()

    async def fail(self) -> None:
        """End the stream of a reply that broke off, and retract what was shown of its answer."""
        await self._retract()
        await self._close()

    async def _publish(self, pieces: Sequence[Piece]) -> None:
        for kind, text in pieces:
            if kind == "retract":
                await self._retract()
            elif kind == "thought":
                await self._send_thought(text)
            elif self._is_structured:
                await self._send("structured", id=f"{self.id}-structured", content=text)
                if self._has_answer_field:
                    await self._send_answer(self._answer_field.feed(text))
            else:
                await self._send_answer(text)

    async def _send_answer(self, text: str) -> None:
        if not text:
            return
        if self._answer_tag == "thought":
            await self._send_thought(text)
            return
        if "answer" not in self._channels and (answers := _answers.get()):
            answers.add(self.id)
        await self._send("answer", id=self.id, content=text)

    async def _send_thought(self, text: str) -> None:
        # A block, and not text: a client that does not know the tags and shows `text` shows no thought.
        block: dict[str, Any] = {"type": "reasoning", "reasoning": text, "index": 0}
        await self._send("thought", id=build_thought_id(self.id), content=[block])

    async def _send_metadata(self, reply: AIMessage) -> None:
        tag: Tag = self._answer_tag
        if self._is_structured:
            tag = "structured"
        elif reply.tool_calls or reply.invalid_tool_calls:
            tag = "thought"
        if tag in self._channels:
            await self._send(
                tag,
                id=f"{self.id}-structured" if self._is_structured else self.id,
                content="",
                response_metadata=reply.response_metadata,
                usage_metadata=reply.usage_metadata,
                chunk_position="last",
            )

    async def _send(self, tag: Tag, **fields: Any) -> None:
        if tag not in self._channels:
            self._channels[tag] = await _Channel.open(self._outer, tag, self._messages)
        await self._channels[tag].send(AIMessageChunk(**fields))

    async def _retract(self) -> None:
        if channel := self._channels.pop("answer", None):
            await channel.close()
            self._answer_field = FieldTokens(ANSWER_FIELD)
            if answers := _answers.get():
                answers.discard(self.id)
            await _announce_reset(self.id, self._outer)

    async def _close(self) -> None:
        for channel in self._channels.values():
            await channel.close()
        self._channels.clear()


def build_thought_id(message_id: str) -> str:
    """Return the id of the stream of thoughts that belongs to a reply."""
    return f"{message_id}{_THOUGHT}"


def find_reply_id(stream_id: str) -> str:
    """Return the id of the reply that a stream belongs to, its thoughts or its text."""
    return stream_id.removesuffix(_THOUGHT)


class _Channel:
    """A model run, as streaming callbacks see it."""

    def __init__(self, run: AsyncCallbackManagerForLLMRun) -> None:
        self._run = run
        self._chunks: list[AIMessageChunk] = []

    @classmethod
    async def open(cls, config: RunnableConfig, tag: Tag, messages: list[BaseMessage]) -> "_Channel":
        manager = _build_manager(config, tag)
        _remove_handlers(manager, streaming=False)
        (run,) = await manager.on_chat_model_start({}, [messages], name=tag)
        return cls(run)

    async def send(self, chunk: AIMessageChunk) -> None:
        self._chunks.append(chunk)
        await self._run.on_llm_new_token(chunk.text, chunk=ChatGenerationChunk(message=chunk))

    async def close(self) -> None:
        message = add_ai_message_chunks(*self._chunks)
        await self._run.on_llm_end(LLMResult(generations=[[ChatGenerationChunk(message=message)]]))


async def _announce_reset(message_id: str, config: RunnableConfig) -> None:
    manager = _build_manager(config, RESET_EVENT)
    if manager.parent_run_id is None:
        return
    data = {"message_id": message_id}
    await manager.on_custom_event(RESET_EVENT, data, run_id=manager.parent_run_id)
    if "langgraph_node" in config.get("metadata", {}):
        # In a node LangGraph is loaded; elsewhere models do without it.
        from langgraph.config import get_stream_writer  # noqa: PLC0415

        get_stream_writer()({"event": RESET_EVENT, **data})


def _build_manager(config: RunnableConfig, tag: str) -> AsyncCallbackManager:
    return get_async_callback_manager_for_config({**config, "tags": [*config.get("tags", []), tag]})


def _remove_handlers(manager: AsyncCallbackManager, *, streaming: bool) -> bool:
    """Remove the handlers that stream, or all others; return whether any was removed."""
    # How LangChain itself recognises them; its class is private.
    found = [each for each in manager.handlers if hasattr(each, "tap_output_aiter") == streaming]
    for handler in found:
        manager.remove_handler(handler)
    return bool(found)


def _list_call_chunks(chunk: AIMessage) -> list[Any]:
    if isinstance(chunk, AIMessageChunk):
        return list(chunk.tool_call_chunks)
    # A model that cannot stream yields a whole message.
    return [
        tool_call_chunk(name=call["name"], args=json.dumps(call["args"]), id=call["id"], index=index)
        for index, call in enumerate(chunk.tool_calls)
    ]
