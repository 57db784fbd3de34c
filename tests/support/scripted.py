"""A chat model that streams the replies of a test, token by token."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any, TypeAlias

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableLambda, RunnableParallel
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core.models import ChatModels, ModelInfo

Reply: TypeAlias = "AIMessage | BaseModel | str | Exception | Callable[[], Awaitable[AIMessage]]"

INFO = ModelInfo(
    model="scripted",
    reasoning_model="scripted",
    fallback_model=None,
    is_language_model=True,
    why="a test says it",
)


class ScriptedChatModel(BaseChatModel):
    """Gives its replies in order and records the messages of each call.

    A reply is a message, a Pydantic value (for structured output), a text (structured output that may not
    parse), or an exception to raise. ``before_token`` is awaited before each token but the first.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    replies: list[Any] = Field(default_factory=list)
    prompts: list[list[BaseMessage]] = Field(default_factory=list)
    before_token: Callable[[], Awaitable[None]] | None = None

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Runnable[Any, Any]:
        return self

    def with_structured_output(
        self, schema: Any, *, include_raw: bool = False, **kwargs: Any
    ) -> Runnable[Any, Any]:
        def parse(reply: dict[str, AIMessage]) -> dict[str, Any]:
            raw = reply["raw"]
            try:
                return {"raw": raw, "parsed": schema.model_validate_json(raw.text), "parsing_error": None}
            except ValidationError as error:
                return {"raw": raw, "parsed": None, "parsing_error": error}

        return RunnableParallel(raw=self) | RunnableLambda(parse)

    def _next(self, messages: list[BaseMessage]) -> AIMessage:
        self.prompts.append(messages)
        assert self.replies, f"the script has no reply to: {messages[-1].text}"
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        if isinstance(reply, BaseModel) and not isinstance(reply, BaseMessage):
            return AIMessage(reply.model_dump_json())
        return AIMessage(reply) if isinstance(reply, str) else reply

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        raise NotImplementedError("the service is asynchronous")

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for index, chunk in enumerate(_chunks(self._next(messages))):
            if index and self.before_token:
                await self.before_token()
            if run_manager:
                await run_manager.on_llm_new_token(chunk.text, chunk=ChatGenerationChunk(message=chunk))
            yield ChatGenerationChunk(message=chunk)


def _chunks(message: AIMessage) -> Iterator[AIMessageChunk]:
    words = message.text.split(" ")
    for index, word in enumerate(words):
        yield AIMessageChunk(content=word if index == 0 else f" {word}")
    calls = [
        {
            "name": call["name"],
            "args": json.dumps(call["args"]),
            "id": call["id"],
            "index": index,
            "type": "tool_call_chunk",
        }
        for index, call in enumerate(message.tool_calls)
    ]
    calls += [
        {
            "name": call["name"],
            "args": call["args"],
            "id": call["id"],
            "index": index,
            "type": "tool_call_chunk",
        }
        for index, call in enumerate(message.invalid_tool_calls)
    ]
    yield AIMessageChunk(
        content="",
        tool_call_chunks=calls,
        response_metadata={"finish_reason": "stop"},
        usage_metadata=message.usage_metadata,
    )


def scripted_models(model: BaseChatModel) -> ChatModels:
    """Return the service's models, all of which are this one; it is called again as soon as it failed."""
    return ChatModels(INFO, lambda _: model, first_pause=0, rest_seconds=0)


def calling(thought: str, *calls: tuple[str, dict[str, Any]]) -> AIMessage:
    """Return a thought with tool calls."""
    return AIMessage(
        thought,
        tool_calls=[
            {"name": name, "args": args, "id": f"call-{thought}-{index}", "type": "tool_call"}
            for index, (name, args) in enumerate(calls)
        ],
    )
