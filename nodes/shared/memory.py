"""Memory as the nodes use it: reading what is known of a contact, and recording what was said.

Neither call delays an answer for long or fails a run: memory that is unavailable, slow or refuses is done
without, and the state says so.
"""

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Final, Literal, TypeVar
from uuid import UUID, uuid5

from pydantic import Field
from typing_extensions import TypedDict

from core import deadline
from core.errors import MemoryRefused, MemoryUnavailable
from core.logging import get_logger
from core.memory import Fact, Hit, Memory, Message, Scope, StrategyName
from core.packing import exclude_facts

log = get_logger(__name__)

T = TypeVar("T")

# The first word of an answer waits for retrieval. A search takes 20 to 60 ms; a circuit breaker answers for
# memory that failed three times (see memory/grpc_calls.py).
RETRIEVAL_SECONDS = 1.5
# An answer that is not streamed waits for recording.
RECORD_SECONDS = 2.0
MAX_HITS = 10
MAX_FACTS = 40
# Messages kept for memory while it is unavailable: a long conversation.
MAX_OUTBOX: Final = 200
_ANSWER_NAMESPACE: Final = UUID("0b6f4b35-6c0c-4bb5-8d1c-0c3f0c0f3a52")


class MemoryStatus(TypedDict):
    """Whether memory could be read for a run. Plain JSON, kept in the state."""

    available: Annotated[
        bool,
        Field(description="Whether memory was asked and answered; if not, only the session was known"),
    ]
    degraded: Annotated[list[str], Field(description="What could not be used, and why")]


class MemoryUse(MemoryStatus):
    """Whether memory could be read and written for a message."""

    recorded: Annotated[
        bool,
        Field(
            description="Whether memory has what it keeps of the message and its answer; if not, the next "
            "run records it"
        ),
    ]


NO_MEMORY_STATUS = MemoryStatus(available=False, degraded=[])
NO_MEMORY_USE = MemoryUse(**NO_MEMORY_STATUS, recorded=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievedMemory:
    """What memory knows of a contact.

    Attributes:
        hits: Search results by query, best first.
        facts: The facts that hold now.
        available: Whether every call was answered.
        degraded: What could not be used, and why.
    """

    hits: Mapping[tuple[StrategyName, str], tuple[Hit, ...]]
    facts: tuple[Fact, ...]
    available: bool
    degraded: tuple[str, ...]


async def retrieve(
    memory: Memory, scope: Scope, queries: Sequence[tuple[StrategyName, str]]
) -> RetrievedMemory:
    """Run every query with its strategy and list the facts, all at once.

    Args:
        memory: The memory service.
        scope: The tenant and contact.
        queries: Strategies and questions.

    Returns:
        What came within :data:`RETRIEVAL_SECONDS`; never raises for memory that is unavailable or refuses.
    """
    faults: list[str] = []
    searches = asyncio.gather(
        *(
            _call_in_time(memory.search(scope, question, strategy=strategy, limit=MAX_HITS), "search", faults)
            for strategy, question in queries
        )
    )
    listed, results = await asyncio.gather(
        _call_in_time(memory.list_facts(scope), "facts", faults),
        searches,
    )
    facts = tuple((listed or [])[:MAX_FACTS])
    answered = {query: result for query, result in zip(queries, results, strict=True) if result is not None}
    degraded = [reason for result in answered.values() for reason in result.degraded]
    return RetrievedMemory(
        hits={query: exclude_facts(result.hits, facts) for query, result in answered.items()},
        facts=facts,
        available=not faults,
        degraded=tuple(dict.fromkeys([*sorted(faults), *degraded])),
    )


async def _call_in_time(call: Awaitable[T], name: str, faults: list[str]) -> T | None:
    try:
        async with deadline.timeout(RETRIEVAL_SECONDS):
            return await call
    except (MemoryUnavailable, MemoryRefused) as error:
        reason = error.message
    except TimeoutError:
        reason = f"memory did not answer within {RETRIEVAL_SECONDS:g} s"
    log.warning("memory_not_used", call=name, reason=reason)
    faults.append(f"{name}: {reason}")
    return None


class PendingMessage(TypedDict):
    """A message that memory does not have yet; ``at`` is ISO 8601."""

    id: str
    role: Literal["customer", "agent", "human"]
    text: str
    at: str
    channel_id: str


def merge_outbox(outbox: Sequence[PendingMessage], new: Sequence[PendingMessage]) -> list[PendingMessage]:
    """Reducer: add the new messages, each once; an empty list empties the outbox."""
    by_id = {message["id"]: message for message in [*outbox, *new]} if new else {}
    return list(by_id.values())[-MAX_OUTBOX:]


def current_time() -> str:
    """Return the current time in ISO 8601."""
    return datetime.now(UTC).isoformat()


def derive_answer_id(turn: str) -> str:
    """Return the id of the answer to a message, the same however often it is recorded."""
    return str(uuid5(_ANSWER_NAMESPACE, turn))


async def record_messages(
    memory: Memory, scope: Scope, session_id: str, messages: Sequence[PendingMessage]
) -> str:
    """Add messages to memory, which ignores those whose id it already has.

    Returns:
        Why they could not be added within :data:`RECORD_SECONDS`; empty on success.
    """
    additions = [
        Message(
            id=message["id"],
            role=message["role"],
            text=message["text"],
            at=datetime.fromisoformat(message["at"]),
            session_id=session_id,
            channel_id=message["channel_id"],
        )
        for message in messages
    ]
    try:
        # Recorded after the answer is known, for which the reserve is there too.
        with deadline.use_reserve():
            async with deadline.timeout(RECORD_SECONDS):
                await memory.add_messages(scope, additions)
    except (MemoryUnavailable, MemoryRefused) as error:
        reason = error.message
    except TimeoutError:
        reason = f"memory did not answer within {RECORD_SECONDS:g} s"
    else:
        return ""
    log.warning("messages_not_recorded", session_id=session_id, reason=reason)
    return reason
