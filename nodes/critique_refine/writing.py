"""A message in the model's own words, with one chance to mend a reply that is none."""

from collections.abc import Sequence

from langchain_core.messages import AIMessage, AnyMessage

from core.models import ChatModels, is_truncated
from nodes.critique_refine.message_text import message_text
from nodes.shared.structured import build_unreadable_notice


async def written(
    models: ChatModels, messages: Sequence[AnyMessage], *, temperature: float, model: str | None
) -> str | None:
    """Ask for a message; a reply that is empty or was cut is told back to the model once.

    Returns:
        The message alone (see :func:`nodes.critique_refine.message_text.message_text`), or ``None`` when the
        second reply was none either.

    Raises:
        ModelError: The model failed for good.
    """
    asked = list(messages)
    for _ in range(2):
        reply = await models.reply(asked, temperature=temperature, model=model)
        text = message_text(reply.text)
        fault = _fault(reply, text)
        if fault is None:
            return text
        asked = [*messages, build_unreadable_notice(fault)]
    return None


def _fault(reply: AIMessage, text: str) -> str | None:
    if is_truncated(reply):
        return "it was cut at the output limit: write a shorter message"
    if not text:
        return "there was no message in it: write the message itself"
    return None
