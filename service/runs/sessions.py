"""Tie the coordinator's runs to customer sessions: enter a session when a run begins, close it at its end.

A session is a thread. Its row belongs to the tenant and contact that entered first, and nobody else gets a
row of that id.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from langchain_core.callbacks import BaseCallbackManager
from langchain_core.runnables import RunnableConfig
from pydantic import BaseModel

from core import postgres
from core.logging import get_logger
from graphs.registry import REGISTRY
from graphs.spec import GraphSpec
from service.auth.principal import Identity
from service.runs.preconditions import ThreadOwners, check_same_conversation, require_unclaimed
from service.runs.request import CompiledGraph, OnFinish, OnStart
from service.sessions.store import SessionEntry, SessionStore

log = get_logger(__name__)

# The graph whose threads are sessions.
SESSION_GRAPH: Final[GraphSpec] = REGISTRY["coordinator"]


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
            state = await self._graph.aget_state(config)
            await self._owners.authorize_thread(identity, session_id, state.metadata)
            check_same_conversation(SESSION_GRAPH.name, contact_id, state)
        return await self._store.enter(
            identity.tenant,
            contact_id,
            channel_id=channel_id,
            session_id=session_id,
            message_id=message_id,
            new_id=new_id,
            claim=partial(require_unclaimed, identity=identity),
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
            if isinstance(graph_input, BaseModel):
                given: Mapping[str, Any] = graph_input.model_dump(include={"contact_id", "channel_id"})
                await self._store.enter(
                    identity.tenant,
                    given["contact_id"],
                    channel_id=given.get("channel_id", ""),
                    session_id=thread_id,
                    message_id=key,
                    new_id=thread_id,
                    claim=partial(require_unclaimed, identity=identity),
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
            except postgres.DATABASE_UNAVAILABLE as error:
                # The customer gets the answer all the same; the session is closed later, as an idle one.
                log.warning("session_not_closed", session_id=thread_id, reason=str(error))

        return close_session
