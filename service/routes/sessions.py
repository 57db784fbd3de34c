"""``/v1/sessions``: conversations of contacts on channels."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from core.errors import NotFound
from service.routes.dependencies import Offset, OpenService, Requester
from service.sessions.store import ClosedBy, Session


class SessionView(BaseModel):
    """A session."""

    id: str = Field(description="The id of its thread; give it as session_id to continue it")
    contact_id: str
    channel_id: str = Field(description="Empty: unknown")
    opened_at: datetime
    last_at: datetime = Field(description="When the last message arrived")
    closed_at: datetime | None = Field(description="null: it is open")
    closed_by: ClosedBy | None = Field(
        description="idle: nobody wrote for long; agent: the conversation ended"
    )
    summary: str | None = Field(description="Null until the session is closed and summarised")


class Sessions(BaseModel):
    """A contact's sessions, latest first."""

    sessions: list[SessionView]


def sessions_router() -> APIRouter:
    """Return the router."""
    router = APIRouter(prefix="/v1/sessions", tags=["sessions"])

    @router.get("")
    async def list_sessions(
        service: OpenService,
        requester: Requester,
        contact_id: Annotated[str, Query(min_length=1, max_length=200)],
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
        offset: Offset = 0,
    ) -> Sessions:
        """List a contact's sessions, latest first."""
        sessions = await service.sessions.list_for_contact(
            requester.tenant, contact_id, limit=limit, offset=offset
        )
        return Sessions(sessions=[_build_view(session) for session in sessions])

    @router.get("/{session_id}")
    async def get_session(session_id: str, service: OpenService, requester: Requester) -> SessionView:
        """Return one session."""
        session = await service.sessions.get(requester.tenant, session_id)
        if session is None:
            raise NotFound(f"there is no session {session_id!r}", details={"id": session_id})
        return _build_view(session)

    return router


def _build_view(session: Session) -> SessionView:
    return SessionView(**{name: getattr(session, name) for name in SessionView.model_fields})
