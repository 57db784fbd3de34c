"""Summarise a closed session, and have memory learn from it."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID, uuid5

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage

from core.memory import Memory, Message, Scope
from core.models import ChatModels
from core.packing import SUMMARY_PREFIX
from nodes.memory.learn import MOST_MESSAGES, learn
from nodes.shared.conversation import select_unsummarised, summarise_conversation
from service.runs.request import CompiledGraph
from service.sessions.store import Session

_SUMMARY_NAMESPACE: Final = UUID("c2a1b7b0-5a55-4c39-9d3a-5c8f7f1f2f11")


async def summarise_session(
    session: Session, *, graph: CompiledGraph, models: ChatModels, memory: Memory
) -> str:
    """Summarise a closed session, and have memory learn the facts stated in it and keep the summary.

    The summary's id in memory is derived from the session and its closing time, so a repeated summary is
    stored once.

    Args:
        session: The session.
        graph: The coordinator, whose thread it is.
        models: Write the summary and extract facts.
        memory: Stores them.

    Returns:
        The summary; empty where nothing was said.

    Raises:
        ModelError: A model failed for good.
        MemoryUnavailable: The memory cannot be reached.
    """
    summary = await _write_summary(session, graph, models)
    if summary:
        scope = Scope(session.tenant, session.contact_id)
        messages = await memory.recent(scope, session_id=session.id, limit=MOST_MESSAGES)
        await learn(models, memory, scope, _select_spoken(messages))
        await memory.add_messages(scope, [_build_note(session, summary)])
    return summary


async def _write_summary(session: Session, graph: CompiledGraph, models: ChatModels) -> str:
    values = (await graph.aget_state({"configurable": {"thread_id": session.id}})).values
    if values.get("contact_id") != session.contact_id:
        # Nothing was said, or the thread is not this contact's.
        return ""
    messages: list[AnyMessage] = [
        message for message in values["messages"] if isinstance(message, HumanMessage | AIMessage)
    ]
    recent = select_unsummarised(
        messages, turn="", summarised_to=values.get("summarised_to", ""), limit=len(messages)
    )
    return await summarise_conversation(models, recent, earlier=values.get("summary", ""))


def _select_spoken(messages: Sequence[Message]) -> list[Message]:
    """Return the messages that people or agents wrote, oldest first."""
    spoken = (message for message in messages if not message.id.startswith(SUMMARY_PREFIX))
    return sorted(spoken, key=lambda message: message.at)


def _build_note(session: Session, summary: str) -> Message:
    closed_at = session.closed_at or session.last_at
    identity = uuid5(_SUMMARY_NAMESPACE, f"{session.id}\n{closed_at.isoformat()}")
    return Message(
        id=f"{SUMMARY_PREFIX}{identity}",
        role="note",
        text=f"Summary of the conversation of {session.opened_at.date().isoformat()}:\n{summary}",
        at=session.last_at,
        session_id=session.id,
        channel_id=session.channel_id,
    )
