"""Structured output with one chance to mend a reply that cannot be read."""

from collections.abc import Sequence
from typing import TypeVar

from langchain_core.messages import BaseMessage, HumanMessage
from pydantic import BaseModel

from core.models import ChatModels, Role

T = TypeVar("T", bound=BaseModel)


async def ask(
    models: ChatModels,
    messages: Sequence[BaseMessage],
    schema: type[T],
    *,
    temperature: float,
    role: Role = "reasoning",
    model: str | None = None,
) -> T | None:
    """Ask for a value; a reply that does not parse is told back to the model once.

    Args:
        models: The chat models.
        messages: The conversation that ends with the question.
        schema: What the answer must be.
        temperature: The step's own.
        role: Which of the models.
        model: ``provider:model`` that stands instead.

    Returns:
        The value, or ``None`` when the second reply could not be read either.
    """
    first = await models.reply_structured(messages, schema, temperature=temperature, role=role, model=model)
    if first.value is not None:
        return first.value
    notice = unreadable_notice(first.error or "it is not what was asked for")
    second = await models.reply_structured(
        [*messages, notice], schema, temperature=temperature, role=role, model=model
    )
    return second.value


def unreadable_notice(fault: str) -> HumanMessage:
    """What the model is told about a reply that could not be read."""
    return HumanMessage(
        f"[Your last reply could not be read] {fault.rstrip('.')}. Answer again, in the form asked for."
    )
