"""The background task that closes idle sessions, and has memory remember and learn what was said in them."""

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Final
from uuid import UUID, uuid5

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.graph.state import CompiledStateGraph

from core.errors import ServiceError
from core.logging import get_logger
from core.memory import Memory, Message, Scope
from core.models import ChatModels
from core.packing import SUMMARY_PREFIX
from core.postgres import DATABASE_UNAVAILABLE
from nodes.memory.learn import MOST_MESSAGES, learn
from nodes.shared.conversation import select_unsummarised, summarise_conversation
from service.sessions.store import Session, SessionStore

log = get_logger(__name__)

BATCH: Final = 20
_JITTER: Final = 0.2
_NAMESPACE: Final = UUID("c2a1b7b0-5a55-4c39-9d3a-5c8f7f1f2f11")


class SessionKeeper:
    """Closes and sums up, in one task.

    A closed session waits in its table for its summary, so a crash loses none; the summary's id in memory is
    made of the session and when it was closed, so one that is written again is kept once.

    Args:
        store: The sessions.
        graph: The coordinator, whose threads they are.
        models: For the summaries.
        memory: Where these can be found afterwards.
        seconds: Between two looks, give or take a fifth, so that services do not keep in step.
    """

    def __init__(
        self,
        store: SessionStore,
        graph: CompiledStateGraph,  # type: ignore[type-arg]  # any state
        models: ChatModels,
        memory: Memory,
        *,
        seconds: float,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._store = store
        self._graph = graph
        self._models = models
        self._memory = memory
        self._seconds = seconds
        self._jitter = jitter

    async def run(self) -> None:
        """Look until cancelled; what fails is logged, and tried again."""
        while True:
            await asyncio.sleep(self._seconds * self._jitter(1 - _JITTER, 1 + _JITTER))
            try:
                await self.sweep()
            except DATABASE_UNAVAILABLE as fault:
                log.warning("sessions_not_swept", reason=str(fault))

    async def sweep(self) -> int:
        """Close what is idle and sum up what is closed, a batch at a time until nothing is left.

        Returns:
            How many sessions were summed up. One that could not be is tried again later.
        """
        while await self._store.close_idle(limit=BATCH) == BATCH:
            pass
        done = 0
        while taken := await self._store.take_unsummarised(limit=BATCH):
            for session in taken:
                done += await self._sum_up(session)
        return done

    async def _sum_up(self, session: Session) -> bool:
        try:
            summary = await self._summary(session)
            if summary:
                scope = Scope(session.tenant, session.contact_id)
                said = await self._memory.recent(scope, session_id=session.id, limit=MOST_MESSAGES)
                await learn(self._models, self._memory, scope, _spoken(said))
                await self._memory.add_messages(scope, [_message(session, summary)])
        except ServiceError as error:
            log.warning("session_not_summed_up", session_id=session.id, reason=error.message)
            return False
        await self._store.summarised(session, summary)
        return True

    async def _summary(self, session: Session) -> str:
        state = await self._graph.aget_state({"configurable": {"thread_id": session.id}})
        values = state.values
        if values.get("contact_id") != session.contact_id:
            # Nothing was said, or the thread is not what the table takes it for.
            return ""
        messages: list[AnyMessage] = [
            message for message in values["messages"] if isinstance(message, HumanMessage | AIMessage)
        ]
        said = select_unsummarised(
            messages, turn="", summarised_to=values.get("summarised_to", ""), limit=len(messages)
        )
        return await summarise_conversation(self._models, said, earlier=values.get("summary", ""))


def _spoken(messages: Sequence[Message]) -> list[Message]:
    """Oldest first, without what we noted ourselves."""
    return sorted(
        (each for each in messages if not each.id.startswith(SUMMARY_PREFIX)), key=lambda each: each.at
    )


def _message(session: Session, summary: str) -> Message:
    closed = session.closed_at or session.last_at
    identity = uuid5(_NAMESPACE, f"{session.id}\n{closed.isoformat()}")
    return Message(
        id=f"{SUMMARY_PREFIX}{identity}",
        role="note",
        text=f"Summary of the conversation of {session.opened_at.date().isoformat()}:\n{summary}",
        at=session.last_at,
        session_id=session.id,
        channel_id=session.channel_id,
    )
