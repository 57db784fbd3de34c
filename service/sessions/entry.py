"""Which session a message is part of, whichever route it comes by.

A session's row is its thread's owner: whoever enters first has the thread, and nobody else gets a row of it.
"""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from langchain_core.callbacks import BaseCallbackManager
from langchain_core.runnables import RunnableConfig

from graphs.registry import REGISTRY
from service.auth.principal import Identity
from service.lifespan import Service
from service.runs.ownership import require_unclaimed
from service.runs.preconditions import require_same
from service.sessions.store import SessionEntry

# Whose threads are sessions.
GRAPH = REGISTRY["coordinator"]

Begin = Callable[[], Awaitable[BaseCallbackManager]]


async def entered(
    service: Service,
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
        NotFound: The session they name is another tenant's.
        SessionRefused: It is another contact's.
        WrongGraph: It is a thread of another graph.
    """
    if session_id and await service.sessions.get(identity.tenant, session_id) is None:
        # A thread may be older than its session, or of a graph that has none.
        config: RunnableConfig = {"configurable": {"thread_id": session_id}}
        state = await service.graphs[GRAPH.name].aget_state(config)
        await service.ownership.require(identity, session_id, state.metadata)
        require_same(GRAPH.name, contact_id, state)
    return await service.sessions.enter(
        identity.tenant,
        contact_id,
        channel_id=channel_id,
        session_id=session_id,
        message_id=message_id,
        new_id=new_id,
        claim=partial(require_unclaimed, identity=identity),
    )


def entering(
    service: Service, identity: Identity, given: Any, *, thread_id: str, key: str, begin: Begin
) -> Begin:
    """What a run on a session's thread begins with: its session's row, and then what it would begin with.

    Called once the run is admitted, so the thread is known to be the contact's.

    Args:
        service: Where the sessions are.
        identity: Who asks.
        given: The run's input; one that answers a question or continues is no new message.
        thread_id: Its thread.
        key: Names the request, so that one that comes again opens nothing anew; empty: it has no name.
        begin: What comes after.
    """

    async def enter() -> BaseCallbackManager:
        if isinstance(given, Mapping):
            await service.sessions.enter(
                identity.tenant,
                given["contact_id"],
                channel_id=given.get("channel_id", ""),
                session_id=thread_id,
                message_id=key,
                new_id=thread_id,
                claim=partial(require_unclaimed, identity=identity),
            )
        return await begin()

    return enter
