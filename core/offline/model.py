"""The offline chat model: LangChain's interface around the policy and the filling of schemas."""

import asyncio
import hashlib
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from operator import itemgetter
from typing import Any, Final

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.chat_models import generate_from_stream
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from pydantic import BaseModel

from core.offline.composing import Composer
from core.offline.conversation import Conversation, read_conversation
from core.offline.policy import Decision, Policy
from core.offline.replies import structured_reply
from core.offline.schemas import Schema
from core.offline.tools import tools_from

OFFLINE_MODEL_NAME: Final = "offline"

_TOKEN: Final = re.compile(r"\s*\S{1,16}|\s+$")
_METADATA: Final[dict[str, Any]] = {
    "model_name": OFFLINE_MODEL_NAME,
    "model_provider": "offline",
    "is_language_model": False,
    "finish_reason": "stop",
}


class OfflineChatModel(BaseChatModel):
    """A deterministic chat model that needs no network. It is not a language model.

    It chooses tools by the words they share with the request, fills their arguments from the conversation,
    and answers with sentences its tools found. The same input gives the same output.

    Attributes:
        token_pause: Seconds between two tokens.
    """

    token_pause: float = 0.0

    @property
    def _llm_type(self) -> str:
        return OFFLINE_MODEL_NAME

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model_name": OFFLINE_MODEL_NAME, "is_language_model": False}

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Bind tools.

        Args:
            tools: In any form LangChain knows.
            tool_choice: ``auto`` (the default), ``none``, ``any``, or the name of a tool to call in any case.
            **kwargs: Bound along.
        """
        formatted = [convert_to_openai_tool(tool) for tool in tools]
        return self.bind(tools=formatted, tool_choice=tool_choice, **kwargs)

    def with_structured_output(
        self, schema: dict[str, Any] | type, *, include_raw: bool = False, **kwargs: Any
    ) -> Runnable[LanguageModelInput, dict[str, Any] | BaseModel]:
        """Answer with JSON text that is valid for a schema, parsed.

        Args:
            schema: A pydantic class, a ``TypedDict`` or a JSON schema.
            include_raw: Return ``{"raw", "parsed", "parsing_error"}`` instead of the parsed value.
            **kwargs: Accepted for the sake of other models' options, and not used.
        """
        del kwargs
        is_model = isinstance(schema, type) and issubclass(schema, BaseModel)
        parser: Runnable[Any, Any] = (
            PydanticOutputParser(pydantic_object=schema) if is_model else JsonOutputParser()
        )
        model = self.bind(
            response_format={"type": "json_schema", "json_schema": {"schema": _json_schema(schema)}}
        )
        if not include_raw:
            return model | parser
        parsed = RunnablePassthrough.assign(parsed=itemgetter("raw") | parser, parsing_error=lambda _: None)
        unparsed = RunnablePassthrough.assign(parsed=lambda _: None)
        return RunnableMap(raw=model) | parsed.with_fallbacks([unparsed], exception_key="parsing_error")

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        del run_manager
        return generate_from_stream(iter(list(_chunks(messages, stop, kwargs))))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        del run_manager
        return generate_from_stream(iter(list(_chunks(messages, stop, kwargs))))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for chunk in _chunks(messages, stop, kwargs):
            if run_manager:
                run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk
            time.sleep(self.token_pause)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in _chunks(messages, stop, kwargs):
            if run_manager:
                await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk
            await asyncio.sleep(self.token_pause)


def _json_schema(schema: dict[str, Any] | type) -> Schema:
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        return schema.model_json_schema()
    if isinstance(schema, dict) and "parameters" not in schema and "function" not in schema:
        return schema
    return convert_to_json_schema(schema)


def _chunks(
    messages: list[BaseMessage], stop: list[str] | None, options: dict[str, Any]
) -> Iterator[ChatGenerationChunk]:
    """Return the reply, token by token, then its tool calls; metadata and counts in the last chunk only."""
    schema = _asked_schema(options)
    conversation = read_conversation(messages, asks_in_last=schema is None)
    decision = _decision(Composer(conversation), options, schema)
    text = _cut_at_stop(decision.text, stop)
    pieces: list[str] = _TOKEN.findall(text)
    for piece in pieces:
        yield ChatGenerationChunk(message=AIMessageChunk(content=piece))
    for index, call in enumerate(decision.calls):
        called = tool_call_chunk(
            name=call.tool,
            args=json.dumps(call.arguments, ensure_ascii=False),
            id=_call_id(messages, call.tool, index),
            index=index,
        )
        yield ChatGenerationChunk(message=AIMessageChunk(content="", tool_call_chunks=[called]))
    written = len(pieces) + sum(len(json.dumps(call.arguments)) // 4 + 1 for call in decision.calls)
    yield ChatGenerationChunk(
        message=AIMessageChunk(
            content="",
            response_metadata=dict(_METADATA),
            usage_metadata=_usage(conversation, written),
            chunk_position="last",
        )
    )


def _decision(composer: Composer, options: dict[str, Any], schema: Schema | None) -> Decision:
    tools = tools_from(options.get("tools") or ())
    choice = options.get("tool_choice")
    policy = Policy(composer, tools)
    if tools and choice not in {None, "auto", "none"} if isinstance(choice, str | None) else tools:
        return policy.force_call(_chosen_tool(choice))
    decision = policy.decide() if tools and choice != "none" else Decision(policy.answer())
    if schema is not None and not decision.calls:
        return Decision(structured_reply(schema, composer))
    return decision


def _chosen_tool(choice: Any) -> str | None:
    if isinstance(choice, dict):
        return str(choice.get("function", choice).get("name"))
    return choice if isinstance(choice, str) else None


def _asked_schema(options: dict[str, Any]) -> Schema | None:
    asked = options.get("response_format")
    if not isinstance(asked, dict):
        return None
    inner = asked.get("json_schema")
    if isinstance(inner, dict):
        found = inner.get("schema", inner)
        return found if isinstance(found, dict) else None
    return {"type": "object"} if asked.get("type") == "json_object" else None


def _cut_at_stop(text: str, stop: list[str] | None) -> str:
    ends = [at for at in (text.find(mark) for mark in stop or () if mark) if at >= 0]
    return text[: min(ends)] if ends else text


def _call_id(messages: list[BaseMessage], tool: str, index: int) -> str:
    """Return an id that depends on the conversation and its turn only."""
    digest = hashlib.sha256(f"{len(messages)}|{tool}|{index}".encode())
    for message in messages:
        digest.update(f"|{message.type}|{message.text}".encode("utf-8", "replace"))
    return f"call_{digest.hexdigest()[:24]}"


def _usage(conversation: Conversation, written: int) -> UsageMetadata:
    return UsageMetadata(
        input_tokens=conversation.words, output_tokens=written, total_tokens=conversation.words + written
    )
