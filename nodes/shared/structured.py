"""Model calls that repeat once when the reply cannot be used: structured values and plain texts."""

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage
from pydantic import BaseModel

from core.customer_text import CustomerText, find_customer_text_fault
from core.models import ChatModels, Role, StructuredReply, is_truncated, is_unable, track_answers
from core.models.echoes import ECHO_FAULT, find_echo, find_echo_in_value
from core.texts import make_storable

T = TypeVar("T", bound=BaseModel)

# Why a run makes no judgement; see has_language_model.
NO_LANGUAGE_MODEL: Final = "no language model is configured"


async def ask_structured(
    models: ChatModels,
    messages: Sequence[BaseMessage],
    schema: type[T],
    *,
    temperature: float,
    role: Role = "reasoning",
    model: str | None = None,
) -> T | None:
    """Ask for a value; a reply that does not parse or repeats the prompt is reported to the model once.

    Args:
        models: The chat models.
        messages: The conversation, which ends with the question.
        schema: The schema of the answer.
        temperature: Sampling temperature.
        role: Which of the models answers.
        model: ``provider:model`` that replaces it for this run.

    Returns:
        The value, or ``None`` when the second reply could not be read either.

    Raises:
        ModelError: The model failed permanently.
    """
    # The offline model fills schemas with lines of the prompt.
    may_quote = not has_language_model(models, model)
    request = list(messages)
    for _ in range(2):
        with track_answers() as streamed:
            reply = await models.reply_structured(
                request, schema, temperature=temperature, role=role, model=model
            )
        fault = _find_value_fault(reply, may_quote=may_quote)
        if not fault:
            return reply.value
        await streamed.retract()
        request = [*messages, build_unreadable_notice(fault)]
    return None


async def ask_text(
    models: ChatModels, messages: Sequence[AnyMessage], *, temperature: float, model: str | None
) -> str:
    """Ask for a text; a reply that is empty, was cut or repeats the prompt is reported to the model once.

    Returns:
        The text; empty when the second reply could not be used either, or the offline model is unable.

    Raises:
        ModelError: The model failed permanently.
    """
    return await _ask_text(models, messages, find_text_fault, temperature=temperature, model=model)


async def ask_customer_text(
    models: ChatModels, messages: Sequence[AnyMessage], *, temperature: float, model: str | None
) -> CustomerText | None:
    """Ask for a text for the customer; one that may not be sent is reported to the model once, too.

    Returns:
        The text; ``None`` where :func:`ask_text` returns an empty one.

    Raises:
        ModelError: The model failed permanently.
    """
    text = await _ask_text(models, messages, find_customer_reply_fault, temperature=temperature, model=model)
    return CustomerText(text) if text else None


async def _ask_text(
    models: ChatModels,
    messages: Sequence[AnyMessage],
    find_fault: Callable[[AIMessage], str],
    *,
    temperature: float,
    model: str | None,
) -> str:
    request = list(messages)
    for _ in range(2):
        with track_answers() as streamed:
            reply = await models.reply(request, temperature=temperature, model=model)
        fault = find_fault(reply)
        if not fault and not is_unable(reply):
            return reply.text
        await streamed.retract()
        if not fault:
            break
        request = [*messages, build_unreadable_notice(fault)]
    return ""


def build_unreadable_notice(fault: str) -> HumanMessage:
    """Return the message that tells the model why its last reply could not be read."""
    return HumanMessage(
        f"[Your last reply could not be read] {fault.rstrip('.')}. Answer again, in the form asked for."
    )


def has_language_model(models: ChatModels, model: str | None) -> bool:
    """Return whether a language model answers; a pattern that judges or plans checks this first.

    The offline model only quotes what it finds. A judgement in its name would be invented.

    Args:
        models: The chat models.
        model: ``provider:model`` that replaces them for the run.
    """
    return model is not None or models.info.is_language_model


def find_text_fault(reply: AIMessage) -> str:
    """Return why the text of a reply cannot be shown to anyone, in words for the model; empty if it can."""
    if is_truncated(reply):
        return "it was cut at the output limit: be shorter"
    if not make_storable(reply.text).strip():
        return "it was empty: answer in words"
    return ECHO_FAULT if find_echo(reply.text) else ""


def find_customer_reply_fault(reply: AIMessage) -> str:
    """Return why a reply cannot be sent to a customer, in words for the model; empty if it can."""
    return find_text_fault(reply) or find_customer_text_fault(reply.text)


def _find_value_fault(reply: StructuredReply[T], *, may_quote: bool) -> str:
    if reply.value is None:
        return reply.error or "it is not what was asked for"
    if may_quote:
        return ""
    return ECHO_FAULT if find_echo_in_value(reply.value.model_dump()) else ""
