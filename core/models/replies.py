"""From a provider's stream to one message, and from a message to a value of a schema."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar
from uuid import uuid4

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, message_chunk_to_message
from langchain_core.messages.ai import add_ai_message_chunks
from langchain_core.runnables import Runnable, RunnableParallel, RunnableSequence
from pydantic import BaseModel, ValidationError
from pydantic_core import to_jsonable_python

from core.errors import ModelRefused
from core.metrics import current_meter
from core.models.faults import STREAM_CUT, TransientError
from core.models.replies import StructuredReply

T = TypeVar("T", bound=BaseModel)

# Gemini's finish reasons that say the reply was withheld, and other providers' words for it.
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
_CUT_AT_LIMIT = frozenset({"MAX_TOKENS", "LENGTH"})
_WHOLE = _CUT_AT_LIMIT | {"STOP"}


def is_truncated(reply: AIMessage) -> bool:
    """Whether a reply that a model's call gave ended at the output limit, so that its end is missing.

    Ask before its tool calls are carried out: LangChain completes the JSON of half a call.
    """
    return reply.response_metadata.get("finish_reason") in _CUT_AT_LIMIT


async def stream_reply(
    chat: Runnable[LanguageModelInput, AIMessage], messages: Sequence[BaseMessage], *, model: str
) -> AIMessage:
    """Ask, stream the reply to whoever listens, and return it whole.

    The caller's callbacks travel in LangChain's context variable, so that in a graph's node every chunk
    reaches the graph's own stream, under the id of the message returned here.

    Raises:
        TransientError: The stream was cut, or ended without a reply for no reason of ours.
        ModelRefused: The provider blocked the prompt or the reply.
    """
    chunks: list[AIMessage] = []
    async for chunk in chat.astream(list(messages)):
        if not chunks:
            current_meter().record_first_token()
        chunks.append(chunk)
    if not chunks:
        raise TransientError(STREAM_CUT)
    finish = _finish_reason(chunks)
    message = _join(chunks, finish)
    _check_whole(message, finish, model)
    return message


async def stream_structured(
    chat: BaseChatModel, messages: Sequence[BaseMessage], schema: type[T], *, model: str
) -> StructuredReply[T]:
    """Ask for a value of ``schema``; the raw reply streams like any other.

    Raises:
        TransientError: As in :func:`stream_reply`.
        ModelRefused: As in :func:`stream_reply`, and for a reply withheld half way.
    """
    runnable = chat.with_structured_output(schema, include_raw=True)
    asking = _asking_part(runnable)
    parsed: Any
    if asking is None:
        parsed = await runnable.ainvoke(list(messages))
    else:
        # In two steps, as a stream through the whole sequence would lose the raw reply when parsing fails.
        ask, parse = asking
        raw = await stream_reply(ask, messages, model=model)
        parsed = await parse.ainvoke({"raw": raw})
    return _structured_reply(parsed, schema, model)


def _asking_part(
    runnable: Runnable[Any, Any],
) -> tuple[Runnable[LanguageModelInput, AIMessage], Runnable[Any, Any]] | None:
    """LangChain's ``{"raw": model} | parser``, taken apart; ``None`` where a model builds it otherwise."""
    if not isinstance(runnable, RunnableSequence) or len(runnable.steps) != 2:  # noqa: PLR2004
        return None
    first, parse = runnable.steps
    if not isinstance(first, RunnableParallel) or list(first.steps__) != ["raw"]:
        return None
    return first.steps__["raw"], parse


def _finish_reason(chunks: Sequence[AIMessage]) -> str | None:
    # The last one given: a provider may repeat it, and merged metadata would hold "STOPSTOP".
    for chunk in reversed(chunks):
        for key in ("finish_reason", "stop_reason"):
            if reason := chunk.response_metadata.get(key):
                return str(getattr(reason, "value", reason)).upper()
    return None


def _join(chunks: Sequence[AIMessage], finish: str | None) -> AIMessage:
    parts = [chunk for chunk in chunks if isinstance(chunk, AIMessageChunk)]
    # A model that cannot stream yields its one message.
    joined = message_chunk_to_message(add_ai_message_chunks(*parts)) if parts else chunks[-1]
    # Gemini's metadata holds enums, which a checkpoint does not keep.
    metadata = to_jsonable_python(joined.response_metadata, fallback=str)
    if finish is not None:
        metadata["finish_reason"] = finish
    update = {"id": joined.id or f"run-{uuid4()}", "response_metadata": metadata}
    message = joined.model_copy(update=update)
    if not isinstance(message, AIMessage):
        raise TypeError(f"a chat model replied with {type(message).__name__}")
    return message


def _check_whole(message: AIMessage, finish: str | None, model: str) -> None:
    feedback = message.response_metadata.get("prompt_feedback")
    blocked = feedback.get("block_reason") if isinstance(feedback, Mapping) else None
    if blocked:
        raise _refused("prompt", str(blocked), model)
    if finish in _REFUSED and not _has_content(message):
        raise _refused("reply", str(finish), model)
    if not model.startswith("google_genai:"):
        return
    # Gemini always says why it finished; without that the rest of the reply is missing.
    if finish is None:
        raise TransientError(STREAM_CUT)
    if finish not in _WHOLE and not _has_content(message):
        raise TransientError(f"the reply is empty, finish reason {finish}")


def _has_content(message: AIMessage) -> bool:
    return bool(message.text.strip() or message.tool_calls or message.invalid_tool_calls)


def _refused(what: str, reason: str, model: str) -> ModelRefused:
    return ModelRefused(
        f"The provider blocked the {what} ({reason}); rephrase the request",
        details={"model": model, "blocked": what, "reason": reason},
    )


def _structured_reply(parsed: Mapping[str, Any], schema: type[T], model: str) -> StructuredReply[T]:
    raw, value = parsed["raw"], parsed.get("parsed")
    finish = str(raw.response_metadata.get("finish_reason") or "").upper()
    if finish in _REFUSED:
        raise _refused("reply", finish, model)
    error = _what_is_wrong(raw, finish, parsed.get("parsing_error"))
    if error is None and not isinstance(value, schema):
        error = f"The reply is not a {schema.__name__}."
    if error is not None:
        return StructuredReply(value=None, error=error, raw=raw)
    return StructuredReply(value=value, error=None, raw=raw)


def _what_is_wrong(raw: AIMessage, finish: str, fault: BaseException | None) -> str | None:
    if not _has_content(raw):
        return "The reply was empty."
    # LangChain's parser completes JSON that was cut, and would make a value of half a reply.
    if finish in _CUT_AT_LIMIT:
        return "The reply was cut at the output limit; answer shorter."
    if not raw.tool_calls and not _is_json(raw.text):
        return "The reply was not valid JSON."
    return None if fault is None else _parse_fault(fault)


def _is_json(text: str) -> bool:
    # A model may wrap its JSON in a Markdown fence or in words.
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
        return "The reply did not fit the schema."
    faults = cause.errors(include_url=False, include_context=False, include_input=False)
    lines = [f"{'.'.join(map(str, each['loc'])) or 'value'}: {each['msg']}" for each in faults[:5]]
    return f"The reply did not fit the schema. {'; '.join(lines)}."
