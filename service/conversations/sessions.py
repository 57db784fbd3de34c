"""Tie the coordinator's runs to customer sessions: enter a session, close it, and summarise a closed one.

A session is a thread. Its row belongs to the tenant and contact that entered first, and nobody else gets a
row of that id.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final
from uuid import UUID, uuid5

from langchain_core.callbacks import BaseCallbackManager
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langchain_core.runnables import RunnableConfig

from core.logging import get_logger
from core.memory import Memory, Message, Scope
from core.models import ChatModels
from core.packing import SUMMARY_PREFIX
from core.postgres import DATABASE_UNAVAILABLE
from graphs.registry import REGISTRY
from graphs.spec import GraphSpec
from nodes.shared.conversation import select_unsummarised, summarise_conversation
from nodes.shared.fact_extraction import MAX_MESSAGES, learn_facts
from service.auth.principal import Identity
from service.runs.preconditions import check_same_conversation
from service.runs.request import CompiledGraph, OnFinish, OnStart
from service.runs.threads import ThreadOwners, no_such_thread, take_thread
from service.sessions.store import Session, SessionEntry, SessionStore

log = get_logger(__name__)

# The graph whose threads are sessions.
SESSION_GRAPH: Final[GraphSpec] = REGISTRY["coordinator"]

_SUMMARY_NAMESPACE: Final = UUID("c2a1b7b0-5a55-4c39-9d3a-5c8f7f1f2f11")


class SessionRuns:
    """Enters and closes the sessions of runs.

    Args:
        store: The sessions.
        owners: Authorizes access to threads.
        graph: The compiled coordinator.
    """

    def __init__(self, store: SessionStore, owners: ThreadOwners, graph: CompiledGraph) -> None:
        self._store = store
        self._owners = owners
        self._graph = graph

    async def enter(
        self,
        identity: Identity,
        contact_id: str,
        *,
        channel_id: str,
        session_id: str,
        message_id: str,
        new_id: str,
    ) -> SessionEntry:
        """Find or open the session of a message; see :meth:`service.sessions.store.SessionStore.enter`.

        Raises:
            NotFound: The named session is another tenant's.
            SessionRefused: The named session is another contact's.
            WrongGraph: The named session is a thread of another graph.
        """
        if session_id and await self._store.get(identity.tenant, session_id) is None:
            # A thread may be older than its session, or belong to a graph that has none.
            config: RunnableConfig = {"configurable": {"thread_id": session_id}}
            owner = await self._owners.find_owner(session_id)
            if owner and owner.tenant != identity.tenant:
                raise no_such_thread(session_id)
            state = await self._graph.aget_state(config)
            check_same_conversation(SESSION_GRAPH.name, contact_id, state)
        return await self._store.enter(
            identity.tenant,
            contact_id,
            channel_id=channel_id,
            session_id=session_id,
            message_id=message_id,
            new_id=new_id,
            authorize=partial(take_thread, tenant=identity.tenant, user=identity.user),
        )

    def enter_on_start(
        self, identity: Identity, graph_input: Any, *, thread_id: str, key: str, on_start: OnStart
    ) -> OnStart:
        """Return a run's ``on_start`` that first enters the session of the run's thread.

        It is called when the run is admitted, so the thread is known to be the contact's.

        Args:
            identity: The caller.
            graph_input: The run's input; an answer or a continuation is no new message and enters nothing.
            thread_id: The run's thread.
            key: Identifies the request, so that a repeated one opens nothing anew; empty: it has no key.
            on_start: Called afterwards.
        """

        async def enter_session() -> BaseCallbackManager:
            if isinstance(graph_input, Mapping):
                await self._store.enter(
                    identity.tenant,
                    graph_input["contact_id"],
                    channel_id=graph_input.get("channel_id", ""),
                    session_id=thread_id,
                    message_id=key,
                    new_id=thread_id,
                    authorize=partial(take_thread, tenant=identity.tenant, user=identity.user),
                )
            return await on_start()

        return enter_session

    def close_on_finish(self, spec: GraphSpec, identity: Identity, thread_id: str) -> OnFinish | None:
        """Return a run's ``on_finish`` that closes its session if the output says that it came to its end.

        Returns:
            ``None`` for a graph whose threads are no sessions.
        """
        if spec is not SESSION_GRAPH:
            return None

        async def close_session(output: Mapping[str, Any]) -> None:
            if not output.get("ends_session"):
                return
            try:
                await self._store.close(identity.tenant, thread_id)
            except DATABASE_UNAVAILABLE as error:
                # The customer gets the answer all the same; the session is closed later, as an idle one.
                log.warning("session_not_closed", session_id=thread_id, reason=str(error))

        return close_session


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
        messages = await memory.recent(scope, session_id=session.id, limit=MAX_MESSAGES)
        await learn_facts(models, memory, scope, _select_spoken(messages))
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
