"""``/v1/sessions``: conversations of contacts on channels, and people who take them over from the agents."""

from datetime import datetime
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Header, Query
from fastapi.encoders import jsonable_encoder
from pydantic import BaseModel, ConfigDict, Field, model_validator

from service.conversations.sessions import SESSION_GRAPH
from service.conversations.transcript import load_conversation
from service.routes.dependencies import Offset, OpenService, Requester
from service.runs.inputs import require_storable
from service.runs.replay import claim_request_key
from service.sessions.store import ClosedBy, Conversation, SessionState

# Runs whose steps are read for a conversation, a query each.
_DETAILED_RUNS: Final = 20


class Latest(BaseModel):
    """What the last run of a session left behind; empty where there was none."""

    last_message: str = Field("", description="The beginning of what was said last")
    author: str = Field("", description="Who said it: customer, agent or person")
    agent: str = Field("", description="The agent that answered; empty: none did")
    category: str = Field("", description="What kind of message it was")
    confidence: float = Field(0, description="Calibrated probability that it was for that agent, 0 to 1")
    path: str = Field("", description="How it was answered; see POST /v1/messages")
    team: str = Field("", description="The team that should take over; empty: none")
    reason: str = Field("", description="Why")


class SessionView(BaseModel):
    """A session."""

    id: str = Field(description="The id of its thread; give it as session_id to continue it")
    contact_id: str
    channel_id: str = Field(description="Empty: unknown")
    state: SessionState = Field(
        description="agent: agents answer; waiting: for a person, as it was handed over or a question is "
        "open; person: somebody has taken it over; closed"
    )
    held_by: str = Field(description="Who has taken it over; empty: nobody")
    held_at: datetime | None = Field(description="Since when")
    opened_at: datetime
    last_at: datetime = Field(description="When the last message arrived")
    changed_at: datetime | None = Field(
        description="When the end of a run last changed it; null: none has run"
    )
    closed_at: datetime | None = Field(description="null: it is open")
    closed_by: ClosedBy | None = Field(
        description="idle: nobody wrote for long; agent: the conversation ended"
    )
    summary: str | None = Field(description="Null until the session is closed and summarised")
    latest: Latest


class Sessions(BaseModel):
    """Sessions, latest first."""

    sessions: list[SessionView]


class Reply(BaseModel):
    """What a person tells the customer."""

    model_config = ConfigDict(extra="forbid")

    _storable = model_validator(mode="before")(require_storable)

    text: str = Field(min_length=1, max_length=20_000, description="What the customer gets")


class Replied(BaseModel):
    """The reply that was sent."""

    session_id: str
    response: str = Field(description="What the customer was told")


class SpokenView(BaseModel):
    """A message of a conversation."""

    id: str
    author: Literal["customer", "agent", "person"]
    name: str = Field(description="Who of the company wrote it; empty: the customer or an agent")
    text: str
    run_id: str = Field(description="The run that it began or that wrote it; empty: unknown by now")
    details: dict[str, Any] = Field(
        description="How an answer was made, in the fields of POST /v1/messages; empty for other messages"
    )


class ConversationView(BaseModel):
    """What was said, oldest first."""

    messages: list[SpokenView]


TakeOver = Annotated[bool, Query(description="Whether to take it from another person, too")]


def sessions_router() -> APIRouter:
    """Return the router."""
    router = APIRouter(prefix="/v1/sessions", tags=["sessions"])

    @router.get("")
    async def list_sessions(
        service: OpenService,
        requester: Requester,
        *,
        contact_id: Annotated[str | None, Query(min_length=1, max_length=200)] = None,
        channel_id: Annotated[str | None, Query(max_length=200)] = None,
        state: SessionState | None = None,
        held_by: Annotated[str | None, Query(max_length=200, description="Who has taken it over")] = None,
        agent: Annotated[str | None, Query(max_length=200, description="Who answered last")] = None,
        query: Annotated[
            str | None, Query(min_length=1, max_length=200, description="Words of the last message")
        ] = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
        offset: Offset = 0,
    ) -> Sessions:
        """List sessions, latest first."""
        found = await service.sessions.find(
            requester.tenant,
            contact_id=contact_id,
            channel_id=channel_id,
            state=state,
            held_by=held_by,
            agent=agent,
            query=query,
            limit=limit,
            offset=offset,
        )
        return Sessions(sessions=[_build_view(session) for session in found])

    @router.get("/{session_id}")
    async def get_session(session_id: str, service: OpenService, requester: Requester) -> SessionView:
        """Return one session."""
        return _build_view(await service.takeovers.get(requester, session_id))

    @router.get("/{session_id}/messages")
    async def list_messages(
        session_id: str,
        service: OpenService,
        requester: Requester,
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
    ) -> ConversationView:
        """Return the latest messages of a conversation, and how the answers of its last runs were made."""
        await service.takeovers.get(requester, session_id)
        runs = await service.run_store.list(requester.tenant, thread_id=session_id, limit=_DETAILED_RUNS)
        graph = service.graphs[SESSION_GRAPH.name]
        spoken = await load_conversation(graph, session_id, runs, limit=limit)
        return ConversationView(messages=[SpokenView(**jsonable_encoder(each)) for each in spoken])

    @router.post("/{session_id}/claim")
    async def claim_session(
        session_id: str, service: OpenService, requester: Requester, *, take_over: TakeOver = False
    ) -> SessionView:
        """Take a conversation over: agents are silent from now on, and customers' messages wait for you.

        An answer that an agent is writing is finished first. What agents asked to do is void once the
        conversation goes on. 409 `held_by_person` where another person has it.
        """
        return _build_view(await service.takeovers.claim(requester, session_id, take_over=take_over))

    @router.post("/{session_id}/reply")
    async def reply(
        session_id: str,
        body: Reply,
        service: OpenService,
        requester: Requester,
        idempotency_key: Annotated[str, Header(description="A reply with a key is sent once")] = "",
    ) -> Replied:
        """Send the customer a reply, through the CRM, in a conversation you have taken over."""
        key, repeated = "", False
        if idempotency_key:
            claimed = await claim_request_key(
                service.requests,
                requester,
                idempotency_key,
                {"reply": body.text, "session_id": session_id},
                thread_id=session_id,
            )
            key, repeated = f"request:{claimed.id}", claimed.repeated
        result = await service.takeovers.reply(requester, session_id, body.text, key=key, repeated=repeated)
        return Replied(session_id=session_id, response=result.values["response"])

    @router.post("/{session_id}/release")
    async def release_session(
        session_id: str, service: OpenService, requester: Requester, *, take_over: TakeOver = False
    ) -> SessionView:
        """Give a conversation back to the agents, who know what was said; it waits for nobody any more."""
        return _build_view(await service.takeovers.release(requester, session_id, take_over=take_over))

    return router


def _build_view(session: Conversation) -> SessionView:
    fields = {name: getattr(session, name) for name in SessionView.model_fields if name != "latest"}
    latest = {name: value for name, value in session.latest.items() if name in Latest.model_fields}
    return SessionView(**fields, latest=Latest(**latest))
