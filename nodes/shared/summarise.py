"""A conversation in short: by the model, or by its own first sentences where there is none."""

import re
from collections.abc import Sequence
from typing import Final

from langchain_core.messages import AnyMessage, HumanMessage, SystemMessage

from core.errors import ModelError
from core.logging import get_logger
from core.models import ChatModels
from core.texts import cut, fence, join_lines
from nodes.shared.conversation import format_turn
from nodes.shared.prompts import load_prompt
from nodes.shared.structured import ask_text

log = get_logger(__name__)

TEMPERATURE = 0.0
SUMMARY_CHARACTERS: Final = 3_000
_LINE_CHARACTERS: Final = 240
# Of a conversation; more is cut in the middle, as what is wanted and what came of it stand at the ends.
_MOST_LINES: Final = 200
_SENTENCE: Final = re.compile(r"(?<=[.!?])\s")


async def summed_up(
    models: ChatModels, said: Sequence[AnyMessage], *, earlier: str = "", model: str | None = None
) -> str:
    """What was said, in at most :data:`SUMMARY_CHARACTERS` characters.

    The offline model is no language model: the extract is better than what it would say.

    Args:
        models: The chat models.
        said: Oldest first.
        earlier: Summary of what was said before.
        model: ``provider:model`` that stands instead of the service's.
    """
    if not said:
        return earlier
    if models.info.is_language_model:
        try:
            written = await ask_text(models, _asked(said, earlier), temperature=TEMPERATURE, model=model)
        except ModelError as error:
            log.warning("summary_not_worded", reason=error.message)
            written = ""
        if written.strip():
            return cut(written.strip(), SUMMARY_CHARACTERS)
    return extract(said, earlier=earlier)


def extract(said: Sequence[AnyMessage], *, earlier: str = "") -> str:
    """The first sentence of each message, the newest where there is no room for all."""
    lines = [*filter(None, earlier.splitlines()), *map(_first_sentence, said)]
    kept: list[str] = []
    room = SUMMARY_CHARACTERS
    for line in reversed(lines):
        room -= len(line) + 1
        if room < 0:
            break
        kept.append(line)
    return "\n".join(reversed(kept))


def _first_sentence(message: AnyMessage) -> str:
    line = join_lines(format_turn(message))
    return cut(_SENTENCE.split(line, maxsplit=1)[0], _LINE_CHARACTERS)


def _asked(said: Sequence[AnyMessage], earlier: str) -> list[AnyMessage]:
    lines = [format_turn(message) for message in said]
    if len(lines) > _MOST_LINES:
        half = _MOST_LINES // 2
        lines = [*lines[:half], f"… ({len(lines) - 2 * half} messages were cut)", *lines[-half:]]
    parts = [
        fence("earlier_summary", earlier) if earlier else "",
        fence("conversation", "\n".join(lines)),
    ]
    return [SystemMessage(load_prompt("session_summary")), HumanMessage("\n\n".join(filter(None, parts)))]
