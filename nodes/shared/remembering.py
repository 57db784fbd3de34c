"""What was said, on its way into memory: kept in the state until memory has it."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, Literal
from uuid import UUID, uuid5

from typing_extensions import TypedDict

from core.errors import MemoryRefused, MemoryUnavailable
from core.logging import get_logger
from core.memory import Memory, Message, Scope

log = get_logger(__name__)

# The answer waits for it, where it is not streamed.
RECORD_SECONDS = 2.0
# Of what memory could not be told while it was away: a long conversation.
MOST_UNSENT: Final = 200
_NAMESPACE: Final = UUID("0b6f4b35-6c0c-4bb5-8d1c-0c3f0c0f3a52")


class Said(TypedDict):
    """A message that memory does not have yet; ``at`` is ISO 8601."""

    id: str
    role: Literal["customer", "agent"]
    text: str
    at: str
    channel_id: str


def unsent(kept: Sequence[Said], new: Sequence[Said]) -> list[Said]:
    """The newest that memory does not have, each once; an empty list says that it has all."""
    by_id = {said["id"]: said for said in [*kept, *new]} if new else {}
    return list(by_id.values())[-MOST_UNSENT:]


def now() -> str:
    """The time, ISO 8601."""
    return datetime.now(UTC).isoformat()


def answer_id(turn: str) -> str:
    """The id of the answer to a message: the same however often it is recorded."""
    return str(uuid5(_NAMESPACE, turn))


async def told(memory: Memory, scope: Scope, session_id: str, said: Sequence[Said]) -> str:
    """Tell memory what was said; what it knows by its id it does not take twice.

    Returns:
        Why memory does not have it; empty when it does.
    """
    messages = [
        Message(
            id=each["id"],
            role=each["role"],
            text=each["text"],
            at=datetime.fromisoformat(each["at"]),
            session_id=session_id,
            channel_id=each["channel_id"],
        )
        for each in said
    ]
    try:
        async with asyncio.timeout(RECORD_SECONDS):
            await memory.add_messages(scope, messages)
    except (MemoryUnavailable, MemoryRefused) as error:
        reason = error.message
    except TimeoutError:
        reason = f"memory did not answer within {RECORD_SECONDS:g} s"
    else:
        return ""
    log.warning("turn_not_recorded", session_id=session_id, reason=reason)
    return reason
