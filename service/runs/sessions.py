"""Connect sessions with the threads of the coordinator, whichever route a message comes by.

A session's row owns its thread: the first caller to enter the session gets the thread.
"""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from langchain_core.callbacks import BaseCallbackManager
from langchain_core.runnables import RunnableConfig

from graphs.registry import REGISTRY
from service.auth.principal import Identity
from service.lifespan import Service
from service.runs.preconditions import check_same_conversation, require_unclaimed
from service.sessions.store import SessionEntry

# The graph whose threads are sessions.
GRAPH = REGISTRY["coordinator"]

Begin = Callable[[], Awaitable[BaseCallbackManager]]


async def enter_session(
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
        NotFound: The named session belongs to another tenant.
        SessionRefused: It belongs to another contact.
        WrongGraph: It is a thread of another graph.
    """
    if session_id and await service.sessions.get(identity.tenant, session_id) is None:
        # The id may be that of a thread without a session, or of another graph.
        config: RunnableConfig = {"configurable": {"thread_id": session_id}}
        state = await service.graphs[GRAPH.name].aget_state(config)
        await service.thread_owners.require(identity, session_id, state.metadata)
        check_same_conversation(GRAPH.name, contact_id, state)
    return await service.sessions.enter(
        identity.tenant,
        contact_id,
        channel_id=channel_id,
        session_id=session_id,
        message_id=message_id,
        new_id=new_id,
        authorize=partial(require_unclaimed, identity=identity),
    )


def begin_in_session(
    service: Service, identity: Identity, run_input: Any, *, thread_id: str, key: str, begin: Begin
) -> Begin:
    """Return what begins a run on a session's thread: it enters the session, then calls ``begin``.

    It is called once the run's preconditions hold, so the thread is known to be the contact's.

    Args:
        service: Holds the sessions.
        identity: The caller.
        run_input: The run's input; one that answers a question or resumes is no new message.
        thread_id: The run's thread.
        key: The request's idempotency key, by which a repeated request opens nothing new; empty: none.
        begin: Begins the run.
    """

    async def enter() -> BaseCallbackManager:
        if isinstance(run_input, Mapping):
            await service.sessions.enter(
                identity.tenant,
                run_input["contact_id"],
                channel_id=run_input.get("channel_id", ""),
                session_id=thread_id,
                message_id=key,
                new_id=thread_id,
                authorize=partial(require_unclaimed, identity=identity),
            )
        return await begin()

    return enter
