"""The chat model that LangChain sees: it reads the conversation, lets code decide, and streams the reply."""

import hashlib
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from functools import lru_cache
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
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import BaseModel

from core.offline.conversation import Conversation, read_conversation
from core.offline.decisions import Decider, Decision, Tool
from core.offline.schema import fill

OFFLINE_MODEL_NAME: Final = "offline"

_TOKEN: Final = re.compile(r"\s*\S{1,16}|\s+$")
# Classes whose JSON schema is kept: making one takes longer than a reply.
_MAX_SCHEMAS: Final = 64
# Rough characters of a token, for the usage that is reported.
_TOKEN_CHARACTERS: Final = 4


class OfflineChatModel(BaseChatModel):
    """A deterministic chat model that needs no network. It is not a language model, and its metadata says so.

    It chooses tools by name and description, fills schemas validly, selects the record that a message is
    about, and quotes the best passage with its title. What it cannot do it hands to a person, or says that it
    is unable (``response_metadata["unable"]``). The same input gives the same output.
    """

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
        self, schema: dict[str, Any] | type[BaseModel], *, include_raw: bool = False, **kwargs: Any
    ) -> Runnable[LanguageModelInput, dict[str, Any] | BaseModel]:
        """Answer with JSON text that is valid for a schema, parsed.

        Args:
            schema: A pydantic class or a JSON schema.
            include_raw: Return ``{"raw", "parsed", "parsing_error"}`` instead of the parsed value.
            **kwargs: Accepted for the sake of other models' options, and not used.
        """
        del kwargs
        parser: Runnable[Any, Any] = JsonOutputParser()
        if isinstance(schema, type):
            parser = PydanticOutputParser(pydantic_object=schema)
            schema = _json_schema(schema)
        model = self.bind(reply_schema=schema)
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
        del stop, run_manager
        return generate_from_stream(iter(list(_chunks(messages, kwargs))))

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        del stop
        for chunk in _chunks(messages, kwargs):
            if run_manager:
                await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk


def _chunks(messages: list[BaseMessage], options: dict[str, Any]) -> Iterator[ChatGenerationChunk]:
    """Yield the reply token by token, then its tool calls; metadata and counts are in the last chunk only."""
    conversation = read_conversation(messages)
    decision = _decide(conversation, options)
    pieces: list[str] = _TOKEN.findall(decision.text)
    for piece in pieces:
        yield ChatGenerationChunk(message=AIMessageChunk(content=piece))
    written = len(pieces)
    for index, (name, arguments) in enumerate(decision.calls):
        text = json.dumps(arguments, ensure_ascii=False)
        written += len(text) // _TOKEN_CHARACTERS + 1
        call = tool_call_chunk(name=name, args=text, id=_call_id(messages, name, index), index=index)
        yield ChatGenerationChunk(message=AIMessageChunk(content="", tool_call_chunks=[call]))
    metadata = {
        "model_name": OFFLINE_MODEL_NAME,
        "model_provider": "offline",
        "is_language_model": False,
        "finish_reason": "stop",
        **({"unable": True} if decision.unable else {}),
    }
    read = conversation.size // _TOKEN_CHARACTERS
    usage = UsageMetadata(input_tokens=read, output_tokens=written, total_tokens=read + written)
    message = AIMessageChunk(
        content="", response_metadata=metadata, usage_metadata=usage, chunk_position="last"
    )
    yield ChatGenerationChunk(message=message)


def _decide(conversation: Conversation, options: dict[str, Any]) -> Decision:
    tools = [_tool(each["function"]) for each in options.get("tools") or ()]
    decider = Decider(conversation, tools)
    choice = options.get("tool_choice")
    if (schema := options.get("reply_schema")) is not None:
        return Decision(json.dumps(fill(schema, _judgement(decider)), ensure_ascii=False))
    if tools and choice not in (None, "auto", "none"):
        chosen = choice.get("function", choice).get("name") if isinstance(choice, dict) else choice
        return decider.call_tool(str(chosen))
    return decider.decide() if tools and choice != "none" else decider.reply()


def _judgement(decider: Decider) -> dict[str, Any]:
    """Return what can be said of the work without a language model, by the usual names of fields."""
    conversation = decider.conversation
    latest = conversation.rounds[-1] if conversation.rounds else []
    tool_names = {call.tool for call in latest if not call.failure}
    had_effect = any(Tool(name, "", {}).is_effect for name in tool_names)
    is_complete = had_effect or bool(conversation.answer)
    reasons = [
        f"{call.tool}: {call.failure or ('found' if call.result else 'nothing found')}" for call in latest
    ]
    values: dict[str, Any] = {
        "success": all(not call.failure for call in latest),
        "task_complete": is_complete,
        "reasoning": "; ".join(reasons) or "no step was taken",
        "title": conversation.task[:120],
        "summary": conversation.task[:500],
    }
    return values | ({"final_answer": conversation.answer or decider.closing()} if is_complete else {})


def _tool(function: dict[str, Any]) -> Tool:
    return Tool(function["name"], function.get("description") or "", function.get("parameters") or {})


@lru_cache(_MAX_SCHEMAS)
def _json_schema(schema: type[BaseModel]) -> dict[str, Any]:
    return schema.model_json_schema()


def _call_id(messages: list[BaseMessage], tool: str, index: int) -> str:
    """Return the same id for the same conversation, and another one for each of its turns."""
    digest = hashlib.sha256(f"{len(messages)}|{tool}|{index}".encode())
    for message in messages:
        digest.update(f"|{message.type}|{message.text}".encode("utf-8", "replace"))
    return f"call_{digest.hexdigest()[:24]}"
