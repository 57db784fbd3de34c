"""Have people take conversations over from the agents, reply in them, and give them back.

A person holds the thread of a session by its row in the table of threads. Every run reads it in the
statement that starts the run, so that no agent speaks once a person holds the thread. What customers write
then, and what the person replies, are runs like any other, in which the coordinator only passes it on.
"""

import asyncio
from typing import Final, Literal, TypeAlias
from uuid import uuid4

from core.customer_text import CustomerText
from core.errors import HeldByPerson, InvalidRequest, NotFound, TextRefused
from service.audit.trail import AuditTrail, Entry
from service.auth.principal import Identity, build_actor
from service.conversations.sessions import SESSION_GRAPH
from service.runs.executor import RunExecutor
from service.runs.inputs import build_graph_input
from service.runs.output import RunResult
from service.runs.request import CompiledGraph, build_run_request
from service.runs.store import RunStore
from service.runs.threads import ThreadHolders
from service.sessions.store import Conversation, SessionStore

# How long a person who takes over waits at most for the answer that an agent is writing.
SETTLE_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.2

Outcome: TypeAlias = Literal["claimed", "taken_over", "released"]


class Takeovers:
    """People who take conversations over.

    Args:
        sessions: The sessions.
        store: The table of runs.
        holders: Who holds which thread.
        runs: Executes the runs of messages.
        graph: The compiled coordinator.
        audit: Records who took over and gave back.
    """

    def __init__(
        self,
        sessions: SessionStore,
        *,
        store: RunStore,
        holders: ThreadHolders,
        runs: RunExecutor,
        graph: CompiledGraph,
        audit: AuditTrail,
    ) -> None:
        self._sessions = sessions
        self._store = store
        self._holders = holders
        self._runs = runs
        self._graph = graph
        self._audit = audit

    async def get(self, identity: Identity, session_id: str) -> Conversation:
        """Return a conversation.

        Raises:
            NotFound: The tenant has no such session.
        """
        found = await self._sessions.find(identity.tenant, session_id=session_id)
        if not found:
            raise NotFound(f"there is no session {session_id!r}", details={"id": session_id})
        return found[0]

    async def claim(self, identity: Identity, session_id: str, *, take_over: bool) -> Conversation:
        """Have the caller take a conversation over, and open it again if it is closed.

        Messages that come from now on wait for the person. An answer that an agent is writing is finished
        first, at most for :data:`SETTLE_SECONDS`, so that the caller sees it before replying.

        Args:
            identity: The caller.
            session_id: The session.
            take_over: Whether to take it from another person, too.

        Raises:
            NotFound: The tenant has no such session.
            HeldByPerson: Another person has it.
        """
        before = await self.get(identity, session_id)
        if not await self._holders.hold(identity.tenant, session_id, identity.user, take_over=take_over):
            raise await self._refuse(identity, session_id)
        await self._sessions.reopen(identity.tenant, session_id)
        if before.held_by != identity.user:
            outcome: Outcome = "taken_over" if before.held_by else "claimed"
            await self._record(identity, session_id, outcome, before.held_by)
        await self._settle(session_id)
        return await self.get(identity, session_id)

    async def reply(
        self, identity: Identity, session_id: str, text: str, *, key: str, repeated: bool
    ) -> RunResult:
        """Send the customer a reply of the caller's, through the CRM, and keep it in the conversation.

        Args:
            identity: The caller, who has taken the conversation over.
            session_id: The session.
            text: The reply.
            key: Identifies the reply, so that it is sent once; empty: it has no key.
            repeated: Whether the key was used before.

        Raises:
            NotFound: The tenant has no such session.
            NotHeld: The caller has not taken it over.
            InvalidRequest: The text may not be sent to a customer.
            CrmError: The CRM did not send it; it can be tried again with the same key.
        """
        conversation = await self.get(identity, session_id)
        try:
            text = CustomerText(text).text
        except TextRefused as error:
            raise InvalidRequest(f"customers may not be sent this text: {error.message}") from None
        values = {
            "message": text,
            "contact_id": conversation.contact_id,
            "channel_id": conversation.channel_id,
            "session_id": session_id,
            "message_id": key or str(uuid4()),
        }
        request = build_run_request(
            self._graph,
            SESSION_GRAPH,
            build_graph_input(SESSION_GRAPH, values),
            identity=identity,
            thread_id=session_id,
            fresh=False,
            metadata={"channel_id": conversation.channel_id},
            modes=("values",),
            key=key,
            repeated=repeated,
            is_from_person=True,
        )
        # The person's browser may be closed: what was written is sent all the same.
        return await asyncio.shield(asyncio.create_task(self._runs.run_to_end(request)))

    async def release(self, identity: Identity, session_id: str, *, take_over: bool) -> Conversation:
        """Give a conversation back to the agents, who know what was said; it waits for nobody any more.

        Raises:
            NotFound: The tenant has no such session.
            HeldByPerson: Another person has it.
        """
        before = await self.get(identity, session_id)
        if not await self._holders.free(identity.tenant, session_id, identity.user, take_over=take_over):
            raise await self._refuse(identity, session_id)
        await self._sessions.touch(identity.tenant, session_id)
        await self._record(identity, session_id, "released", before.held_by)
        return await self.get(identity, session_id)

    async def _refuse(self, identity: Identity, session_id: str) -> HeldByPerson:
        held_by = await self._holders.get(identity.tenant, session_id)
        return HeldByPerson(
            f"{held_by!r} has taken the conversation over; take_over=true takes it from them",
            details={"held_by": held_by},
        )

    async def _settle(self, session_id: str) -> None:
        """Wait until the runs that were on the thread have ended."""
        try:
            async with asyncio.timeout(SETTLE_SECONDS):
                while await self._store.find_open(session_id):  # noqa: ASYNC110 - a row
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            return

    async def _record(self, identity: Identity, session_id: str, outcome: Outcome, before: str) -> None:
        await self._audit.record(
            Entry(
                action="takeover",
                tool=SESSION_GRAPH.name,
                outcome=outcome,
                details={"held_before": before},
                actor=build_actor(identity, thread_id=session_id),
            )
        )
