"""The turns of a conversation: which of them a model sees, how they are written, and their summary."""

import re
from collections.abc import Sequence
from itertools import dropwhile
from typing import Final

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage

from core.errors import ModelError
from core.logging import get_logger
from core.models import ChatModels
from core.packing import ContextRecord, Item
from core.texts import cut, fence, join_lines
from nodes.shared.prompts import load_prompt
from nodes.shared.steps import SUMMARISE
from nodes.shared.structured import ask_customer_text

log = get_logger(__name__)

# Longer conversations are summarised, however short their turns are.
MAX_TURNS = 60
SUMMARY_CHARACTERS: Final = 3_000
_TURN_CHARACTERS: Final = 2_000
_SENTENCE_CHARACTERS: Final = 240
# Turns given to the model for a summary. Longer conversations lose their middle, because the request stands
# at the start and the outcome at the end.
_MAX_SUMMARISED_TURNS: Final = 200
_NOTICE: Final = "notice"
_PERSON: Final = "written_by"
_SENTENCE_END: Final = re.compile(r"(?<=[.!?])\s")


def select_spoken(earlier: Sequence[AnyMessage], limit: int) -> list[AnyMessage]:
    """Return the newest ``limit`` questions and answers, beginning with a question.

    Tool calls are left out, because they need their results beside them. An answer whose question is beyond
    the limit is left out too, because providers require that a person speaks first.
    """
    newest = [message for message in earlier if _is_spoken(message)][-limit:]
    return list(dropwhile(lambda message: isinstance(message, AIMessage), newest))


def _is_spoken(message: AnyMessage) -> bool:
    return isinstance(message, HumanMessage) or (isinstance(message, AIMessage) and not message.tool_calls)


def select_unsummarised(
    messages: Sequence[AnyMessage], *, turn: str, summarised_to: str, limit: int = MAX_TURNS
) -> list[AnyMessage]:
    """Return the questions and answers before this turn that the summary does not cover, oldest first.

    Args:
        messages: The session's messages.
        turn: Id of the message that is being answered; empty: all messages are earlier.
        summarised_to: Id of the last message the summary covers; empty: there is no summary.
        limit: Maximum number of messages.
    """
    ids = [message.id for message in messages]
    start = ids.index(summarised_to) + 1 if summarised_to in ids else 0
    return select_spoken([message for message in messages[start:] if message.id != turn], limit)


def select_history(
    earlier: Sequence[AnyMessage], limit: int, context: Sequence[ContextRecord]
) -> list[AnyMessage]:
    """Return the newest questions and answers that fit the run's context.

    Args:
        earlier: The messages before this run.
        limit: Maximum number of messages.
        context: The run's context records, which name the turns that did not fit; empty: all fit.
    """
    dropped = {
        item["id"]
        for record in context
        for section in record["sections"]
        if section["section"] == "conversation"
        for item in section["dropped"]
    }
    newest = select_spoken(earlier, limit)
    return select_spoken([message for message in newest if message.id not in dropped], limit)


def build_turn_items(messages: Sequence[AnyMessage]) -> tuple[Item, ...]:
    """Return the messages as context items, oldest first."""
    return tuple(
        Item(message.id or str(number), format_turn(message)) for number, message in enumerate(messages)
    )


def format_turn(message: AnyMessage) -> str:
    """Return the message as a line that names its speaker."""
    speaker = "customer" if isinstance(message, HumanMessage) else "we"
    return f"{speaker}: {cut(message.text, _TURN_CHARACTERS)}"


def mark_notice(answer: AIMessage) -> AIMessage:
    """Return an answer as a notice of a failure or a hand-off, which no summary repeats."""
    return answer.model_copy(update={"additional_kwargs": {**answer.additional_kwargs, _NOTICE: True}})


def mark_person(message: AIMessage, user: str) -> AIMessage:
    """Return a message to the customer as one that a person of the company wrote."""
    return message.model_copy(update={"additional_kwargs": {**message.additional_kwargs, _PERSON: user}})


def get_person(message: AnyMessage) -> str:
    """Return who of the company wrote a message; empty: an agent or the customer did."""
    return str(message.additional_kwargs.get(_PERSON, ""))


def _drop_notices(messages: Sequence[AnyMessage]) -> list[AnyMessage]:
    return [message for message in messages if not message.additional_kwargs.get(_NOTICE)]


async def summarise_conversation(
    models: ChatModels, messages: Sequence[AnyMessage], *, earlier: str = "", model: str | None = None
) -> str:
    """Summarise messages in at most :data:`SUMMARY_CHARACTERS` characters.

    Falls back to :func:`extract_first_sentences` when no language model answers; the offline model would
    only quote.

    Args:
        models: The chat models.
        messages: Oldest first.
        earlier: Summary of the messages before them.
        model: ``provider:model`` that replaces the service's.
    """
    messages = _drop_notices(messages)
    if not messages:
        return earlier
    if models.info.is_language_model:
        try:
            request = _build_summary_request(messages, earlier)
            # A summary becomes a memory, which holds no more of our own than an answer.
            summary = await ask_customer_text(models, request, step=SUMMARISE, model=model)
        except ModelError as error:
            log.warning("summary_not_written", reason=error.message)
            summary = None
        if summary:
            return cut(summary.text.strip(), SUMMARY_CHARACTERS)
    return extract_first_sentences(messages, earlier=earlier)


def extract_first_sentences(messages: Sequence[AnyMessage], *, earlier: str = "") -> str:
    """Return the first sentence of each message; the newest, if there is no room for all."""
    lines = [*filter(None, earlier.splitlines()), *map(_extract_first_sentence, _drop_notices(messages))]
    newest: list[str] = []
    room = SUMMARY_CHARACTERS
    for line in reversed(lines):
        room -= len(line) + 1
        if room < 0:
            break
        newest.append(line)
    return "\n".join(reversed(newest))


def _extract_first_sentence(message: AnyMessage) -> str:
    line = join_lines(format_turn(message))
    return cut(_SENTENCE_END.split(line, maxsplit=1)[0], _SENTENCE_CHARACTERS)


def _build_summary_request(messages: Sequence[AnyMessage], earlier: str) -> list[AnyMessage]:
    lines = [format_turn(message) for message in messages]
    if len(lines) > _MAX_SUMMARISED_TURNS:
        half = _MAX_SUMMARISED_TURNS // 2
        lines = [*lines[:half], f"… ({len(lines) - 2 * half} messages were cut)", *lines[-half:]]
    parts = [
        fence("earlier_summary", earlier) if earlier else "",
        fence("conversation", "\n".join(lines)),
    ]
    return [SystemMessage(load_prompt("session_summary")), HumanMessage("\n\n".join(filter(None, parts)))]
