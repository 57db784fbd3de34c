"""An answer in the model's own words, with one chance to mend a reply that is none."""

from collections.abc import Sequence

from langchain_core.messages import AIMessage, AnyMessage

from core.models import ChatModels, is_truncated
from core.texts import make_storable
from nodes.shared.structured import build_unreadable_notice


def has_words(models: ChatModels, model: str | None) -> bool:
    """Whether a language model answers: the offline model quotes what it finds, and words nothing.

    Args:
        models: The chat models.
        model: ``provider:model`` that stands instead for the run.
    """
    return model is not None or models.info.is_language_model


async def worded(
    models: ChatModels, messages: Sequence[AnyMessage], *, temperature: float, model: str | None
) -> str:
    """Ask for a text; a reply that is empty or was cut is told back to the model once.

    Returns:
        The text; empty when the second reply could not be used either.

    Raises:
        ModelError: The model failed for good.
    """
    reply = await models.reply(messages, temperature=temperature, model=model)
    if fault := _fault(reply):
        again = [*messages, build_unreadable_notice(fault)]
        reply = await models.reply(again, temperature=temperature, model=model)
    return "" if _fault(reply) else reply.text


def _fault(reply: AIMessage) -> str:
    if is_truncated(reply):
        return "it was cut at the output limit: be shorter"
    return "" if make_storable(reply.text).strip() else "it was empty: answer in words"
