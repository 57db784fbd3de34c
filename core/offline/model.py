"""The chat model that LangChain sees: it reads the conversation, lets code decide, and streams the reply."""

import hashlib
import json
import re
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, Final

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.chat_models import generate_from_stream
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool

from core.offline.conversation import read_conversation
from core.offline.decisions import Decider, Decision, Tool

OFFLINE_MODEL_NAME: Final = "offline"

_TOKEN: Final = re.compile(r"\s*\S{1,16}|\s+$")
# Rough characters of a token, for the usage that is reported.
_TOKEN_CHARACTERS: Final = 4


_MOST_FORMATTED: Final = 256
_formatted: OrderedDict[int, tuple[Any, dict[str, Any]]] = OrderedDict()


class OfflineChatModel(BaseChatModel):
    """A deterministic chat model that needs no network. It is not a language model, and its metadata says so.

    It chooses tools by name and description, fills schemas validly, selects the record that a message is
    about, and quotes the best passage with its title. What it cannot do it hands to a person, or says that it
    is unable (``response_metadata["unable"]``). The same input gives the same output. A structured reply is
    the call of a tool with its schema.
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
        formatted = [_format_tool(tool) for tool in tools]
        return self.bind(tools=formatted, tool_choice=tool_choice, **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        del stop, run_manager
        return generate_from_stream(_write(messages, kwargs))

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        del stop
        for chunk in _write(messages, kwargs):
            if run_manager:
                await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk


def _format_tool(tool: Any) -> dict[str, Any]:
    """Return a tool as a JSON schema, which LangChain would build for each call."""
    # By identity, which stays the tool's as long as the entry holds it.
    if id(tool) not in _formatted:
        _formatted[id(tool)] = tool, convert_to_openai_tool(tool)
        if len(_formatted) > _MOST_FORMATTED:
            _formatted.popitem(last=False)
    return _formatted[id(tool)][1]


def _write(messages: list[BaseMessage], options: dict[str, Any]) -> Iterator[ChatGenerationChunk]:
    """Yield the reply token by token, then its tool calls; metadata and counts are in the last chunk only."""
    decision = _decide(messages, options)
    pieces: list[str] = _TOKEN.findall(decision.text)
    for piece in pieces:
        yield ChatGenerationChunk(message=AIMessageChunk(content=piece))
    written = len(pieces)
    for index, (name, arguments) in enumerate(decision.calls):
        text = json.dumps(arguments, ensure_ascii=False)
        written += len(text) // _TOKEN_CHARACTERS + 1
        call = tool_call_chunk(name=name, args=text, id=_identify_call(messages, name, index), index=index)
        yield ChatGenerationChunk(message=AIMessageChunk(content="", tool_call_chunks=[call]))
    metadata = {
        "model_name": OFFLINE_MODEL_NAME,
        "model_provider": "offline",
        "is_language_model": False,
        "finish_reason": "stop",
        **({"unable": True} if decision.unable else {}),
    }
    read = sum(len(message.text) for message in messages) // _TOKEN_CHARACTERS
    usage = UsageMetadata(input_tokens=read, output_tokens=written, total_tokens=read + written)
    last = AIMessageChunk(content="", response_metadata=metadata, usage_metadata=usage, chunk_position="last")
    yield ChatGenerationChunk(message=last)


def _decide(messages: list[BaseMessage], options: dict[str, Any]) -> Decision:
    functions = [each["function"] for each in options.get("tools") or ()]
    tools = [Tool(f["name"], f.get("description") or "", f.get("parameters") or {}) for f in functions]
    choice = options.get("tool_choice") or "auto"
    decider = Decider(read_conversation(messages), [] if choice == "none" else tools)
    return decider.decide() if choice in ("auto", "none") or not tools else decider.call_tool(choice)


def _identify_call(messages: list[BaseMessage], tool: str, index: int) -> str:
    """Return the same id for the same conversation, and another one for each of its turns."""
    said = [f"{message.type}|{message.text}" for message in messages]
    digest = hashlib.sha256("|".join([str(len(said)), tool, str(index), *said]).encode("utf-8", "replace"))
    return f"call_{digest.hexdigest()[:24]}"
