"""Replies: a provider's stream joined to one message, and a message parsed to a value of a schema."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from traceback import walk_tb
from typing import Any, Generic, TypeVar
from uuid import uuid4

from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, message_chunk_to_message
from langchain_core.messages.ai import UsageMetadata, add_ai_message_chunks
from langchain_core.runnables import Runnable, RunnableParallel, RunnableSequence
from pydantic import BaseModel, ValidationError
from pydantic_core import to_jsonable_python

from core.errors import ModelRefused
from core.logging import get_logger
from core.metrics import current_meter
from core.models.faults import (
    STREAM_CUT,
    STREAM_UNREADABLE,
    TransientError,
    get_hidden_finish_reason,
    is_unreadable,
)
from core.models.reasoning import separate_reasoning
from core.models.streams import ReplyStream

T = TypeVar("T", bound=BaseModel)

# Finish reasons of Gemini and other providers that mean that the reply was withheld.
_REFUSED = frozenset(
    {
        "SAFETY",
        "RECITATION",
        "LANGUAGE",
        "BLOCKLIST",
        "PROHIBITED_CONTENT",
        "SPII",
        "IMAGE_SAFETY",
        "IMAGE_PROHIBITED_CONTENT",
        "IMAGE_RECITATION",
        "CONTENT_FILTER",
        "REFUSAL",
    }
)
_CUT_AT_LIMIT = frozenset({"MAX_TOKENS", "LENGTH", "MAX_OUTPUT_TOKENS"})
_WHOLE = _CUT_AT_LIMIT | {"STOP"}
# Providers that end every reply with a finish reason; without one the rest of the reply is missing.
_ALWAYS_FINISH = (
    "google_genai:",
    "google_vertexai:",
    "openai:",
    "azure_openai:",
    "deepseek:",
    "xai:",
    "together:",
)
_NOT_JSON = "The reply was not valid JSON."
_CUT = "The reply was cut at the output limit; answer shorter."

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class StructuredReply(Generic[T]):
    """A structured reply: its ``value``, or an ``error`` that says why it could not be parsed."""

    value: T | None
    error: str | None
    raw: AIMessage


def is_truncated(reply: AIMessage) -> bool:
    """Return whether a reply ended at the output limit, so that its end is missing.

    Check this before executing its tool calls: LangChain completes the JSON of a truncated call.
    """
    return reply.response_metadata.get("finish_reason") in _CUT_AT_LIMIT


def is_unable(reply: AIMessage) -> bool:
    """Return whether the offline model says that it cannot do what was asked; a person may."""
    return bool(reply.response_metadata.get("unable"))


async def stream_reply(
    chat: Runnable[LanguageModelInput, AIMessage],
    messages: Sequence[BaseMessage],
    *,
    model: str,
    may_call_tools: bool,
) -> AIMessage:
    """Call the model, stream the reply to the caller's callbacks, and return it whole.

    LangChain passes the callbacks in a context variable, so that in a graph's node the answer reaches the
    graph's own stream, with the id of the message that is returned here (:mod:`core.models.streams`).

    Raises:
        TransientError: The stream was interrupted, or ended without a reply.
        ModelRefused: The provider blocked the prompt or the reply.
    """
    async with _publish(ReplyStream(messages, may_call_tools=may_call_tools)) as stream:
        chunks, fault = await _read_stream(chat, messages, stream)
        if fault is not None:
            raise TransientError(STREAM_UNREADABLE) from fault
        reply = _build_message(chunks, model, stream.id, may_call_tools=may_call_tools)
        await stream.end(reply, is_complete=not is_truncated(reply))
    return reply


async def stream_structured(
    chat: BaseChatModel, messages: Sequence[BaseMessage], schema: type[T], *, model: str
) -> StructuredReply[T]:
    """Call the model for a value of ``schema``; the raw reply and its answer field are streamed.

    A reply that is no such value is returned with the reason, also if the provider's SDK parses replies
    itself and raises an exception for it.

    Raises:
        TransientError: As in :func:`stream_reply`.
        ModelRefused: As in :func:`stream_reply`, and if the rest of the reply was withheld.
    """
    runnable = chat.with_structured_output(schema, include_raw=True)
    parts = _split_runnable(runnable)
    if parts is None:
        return await _invoke_structured(runnable, messages, schema, model)
    # In two steps, because a stream through the whole sequence loses the raw reply if parsing fails.
    ask, parse = parts
    async with _publish(ReplyStream(messages, schema=schema)) as stream:
        chunks, fault = await _read_stream(ask, messages, stream)
        if fault is not None:
            reply = _unparsed_reply(chunks, fault, schema, model)
        else:
            raw = _build_message(chunks, model, stream.id, may_call_tools=False)
            reply = _structured_reply(await parse.ainvoke({"raw": raw}), schema, model)
        if reply.value is not None:
            await stream.end(reply.raw, is_complete=True)
            return reply
        await stream.fail()
    return reply


async def _invoke_structured(
    runnable: Runnable[LanguageModelInput, Any], messages: Sequence[BaseMessage], schema: type[T], model: str
) -> StructuredReply[T]:
    try:
        with ReplyStream(messages).silence_call():
            parsed = await runnable.ainvoke(list(messages))
    except Exception as error:
        if not is_unreadable(error):
            raise
        return _unparsed_reply([], error, schema, model)
    return _structured_reply(parsed, schema, model)


@asynccontextmanager
async def _publish(stream: ReplyStream) -> AsyncIterator[ReplyStream]:
    """Retract what was shown of a reply that does not come to its end."""
    try:
        yield stream
    except BaseException:
        await stream.fail()
        raise


async def _read_stream(
    chat: Runnable[LanguageModelInput, AIMessage], messages: Sequence[BaseMessage], stream: ReplyStream
) -> tuple[list[AIMessage], Exception | None]:
    """Return what the model streamed, and why the rest of it could not be read, if it could not."""
    chunks: list[AIMessage] = []
    try:
        with stream.silence_call():
            async for chunk in chat.astream(list(messages)):
                if not chunks:
                    current_meter().record_first_token()
                chunks.append(chunk)
                await stream.take(chunk)
    except Exception as error:
        if not is_unreadable(error):
            raise
        # With its place, so that a bug is not hidden, but without its text, which may quote the reply.
        frame, line = list(walk_tb(error.__traceback__))[-1]
        place = f"{frame.f_globals.get('__name__')}:{line}"
        _log.warning("reply_unreadable", error=type(error).__name__, place=place)
        return chunks, error
    return chunks, None


def _unparsed_reply(
    chunks: Sequence[AIMessage], fault: Exception, schema: type[T], model: str
) -> StructuredReply[T]:
    """Return the reply that the provider's SDK or adapter failed to parse.

    Raises:
        TransientError: The stream was broken, and not the value in it.
        ModelRefused: The rest of the reply was withheld.
    """
    finish = get_hidden_finish_reason(fault)
    if finish is None and not _is_parse_fault(fault, schema):
        raise TransientError(STREAM_UNREADABLE) from fault
    if finish is None and _is_after_stream(fault):
        raise TransientError(STREAM_CUT) from fault
    if finish in _REFUSED:
        raise _build_refused("reply", str(finish), model)
    raw = _join(chunks or [AIMessage("")], finish)
    return StructuredReply(value=None, error=_CUT if finish else _parse_fault(fault), raw=raw)


def _is_parse_fault(fault: Exception, schema: type[BaseModel]) -> bool:
    if isinstance(fault, ValidationError):
        return fault.title == schema.__name__
    # The OpenAI SDK parses JSON while it streams, with a parser that raises a bare ValueError. Subclasses
    # are raised for events that are not JSON or not UTF-8.
    return isinstance(fault, OutputParserException) or type(fault) is ValueError


def _is_after_stream(fault: Exception) -> bool:
    # The OpenAI SDK parses at the finish reason, or in this method if the stream ended without one.
    return any(frame.f_code.co_name == "get_final_completion" for frame, _ in walk_tb(fault.__traceback__))


def _split_runnable(
    runnable: Runnable[Any, Any],
) -> tuple[Runnable[LanguageModelInput, AIMessage], Runnable[Any, Any]] | None:
    """Split LangChain's ``{"raw": model} | parser``; return ``None`` if a model builds it differently."""
    if not isinstance(runnable, RunnableSequence) or len(runnable.steps) != 2:  # noqa: PLR2004
        return None
    first, parse = runnable.steps
    if not isinstance(first, RunnableParallel) or list(first.steps__) != ["raw"]:
        return None
    return first.steps__["raw"], parse


def _finish_reason(chunks: Sequence[AIMessage]) -> str | None:
    # The last one: a provider may repeat it, and merged metadata would contain "STOPSTOP".
    for chunk in reversed(chunks):
        for key in ("finish_reason", "stop_reason"):
            if reason := chunk.response_metadata.get(key):
                return str(getattr(reason, "value", reason)).upper()
        # OpenAI's Responses API.
        if chunk.response_metadata.get("status") == "completed":
            return "STOP"
        if chunk.response_metadata.get("status") == "incomplete":
            details = chunk.response_metadata.get("incomplete_details")
            return str((details.get("reason") if isinstance(details, Mapping) else None) or "LENGTH").upper()
    return None


def _build_message(
    chunks: Sequence[AIMessage], model: str, message_id: str, *, may_call_tools: bool
) -> AIMessage:
    """Join the chunks of a stream that was read to its end, and check that the reply is complete."""
    if not chunks:
        raise TransientError(STREAM_CUT)
    finish = _finish_reason(chunks)
    message = _join(chunks, finish)
    _check_complete(message, finish, model)
    reply = separate_reasoning(message, may_call_tools=may_call_tools)
    return reply.model_copy(update={"id": message_id})


def _join(chunks: Sequence[AIMessage], finish: str | None) -> AIMessage:
    parts = [chunk for chunk in chunks if isinstance(chunk, AIMessageChunk)]
    try:
        # A model that cannot stream yields a single message.
        joined = message_chunk_to_message(add_ai_message_chunks(*parts)) if parts else chunks[-1]
        # Gemini's metadata contains enums, which a checkpoint cannot store.
        metadata = to_jsonable_python(joined.response_metadata, fallback=str)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise TransientError(STREAM_UNREADABLE) from error
    if finish is not None:
        metadata["finish_reason"] = finish
    if not isinstance(joined, AIMessage):
        raise TypeError(f"a chat model replied with {type(joined).__name__}")
    return joined.model_copy(
        update={
            "id": joined.id or f"run-{uuid4()}",
            "response_metadata": metadata,
            "usage_metadata": _check_usage(joined.usage_metadata),
        }
    )


def _check_usage(usage: UsageMetadata | None) -> UsageMetadata | None:
    """Return the provider's counts of tokens, or ``None`` if they are not counts."""
    counts = [usage.get(key) for key in ("input_tokens", "output_tokens", "total_tokens")] if usage else []
    return usage if all(isinstance(count, int) and count >= 0 for count in counts) else None


def _check_complete(message: AIMessage, finish: str | None, model: str) -> None:
    feedback = message.response_metadata.get("prompt_feedback")
    blocked = feedback.get("block_reason") if isinstance(feedback, Mapping) else None
    if blocked:
        raise _build_refused("prompt", str(blocked), model)
    if finish in _REFUSED and not _has_content(message):
        raise _build_refused("reply", str(finish), model)
    refusal = message.additional_kwargs.get("refusal")
    if refusal and not _has_content(message):
        raise _build_refused("reply", "REFUSAL", model)
    if not model.startswith(_ALWAYS_FINISH):
        return
    if finish is None:
        raise TransientError(STREAM_CUT)
    if finish not in _WHOLE and not _has_content(message):
        raise TransientError(f"the reply is empty, finish reason {finish}")


def _has_content(message: AIMessage) -> bool:
    return bool(message.text.strip() or message.tool_calls or message.invalid_tool_calls)


def _build_refused(what: str, reason: str, model: str) -> ModelRefused:
    return ModelRefused(
        f"The provider blocked the {what} ({reason}); rephrase the request",
        details={"model": model, "blocked": what, "reason": reason},
    )


def _structured_reply(parsed: Mapping[str, Any], schema: type[T], model: str) -> StructuredReply[T]:
    raw, value = parsed["raw"], parsed.get("parsed")
    finish = str(raw.response_metadata.get("finish_reason") or "").upper()
    if finish in _REFUSED:
        raise _build_refused("reply", finish, model)
    error = _find_fault(raw, finish, parsed.get("parsing_error"))
    if error is None and not isinstance(value, schema):
        error = f"The reply is not a {schema.__name__}."
    if error is not None:
        return StructuredReply(value=None, error=error, raw=raw)
    return StructuredReply(value=value, error=None, raw=raw)


def _find_fault(raw: AIMessage, finish: str, fault: BaseException | None) -> str | None:
    if not _has_content(raw):
        return "The reply was empty."
    # LangChain's parser completes truncated JSON, and would parse half a reply.
    if finish in _CUT_AT_LIMIT:
        return _CUT
    if not raw.tool_calls and not _is_json(raw.text):
        return _NOT_JSON
    return None if fault is None else _parse_fault(fault)


def _is_json(text: str) -> bool:
    # A model may put its JSON into a Markdown fence or into a sentence.
    inner = text[text.find("{") : text.rfind("}") + 1]
    return any(_loads(candidate) for candidate in (text, inner))


def _loads(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _parse_fault(fault: BaseException) -> str:
    cause: BaseException | None = fault
    while cause is not None and not isinstance(cause, ValidationError):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return _NOT_JSON if type(fault) is ValueError else "The reply did not fit the schema."
    if any(each["type"] == "json_invalid" for each in cause.errors(include_url=False, include_input=False)):
        return _NOT_JSON
    faults = cause.errors(include_url=False, include_context=False, include_input=False)
    lines = [f"{'.'.join(map(str, each['loc'])) or 'value'}: {each['msg']}" for each in faults[:5]]
    return f"The reply did not fit the schema. {'; '.join(lines)}."
