"""``/v1/sessions``: conversations of contacts on channels."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from core.errors import NotFound
from service.routes.dependencies import OpenService, Requester
from service.sessions.store import ClosedBy, Session


class SessionView(BaseModel):
    """A session."""

    id: str = Field(description="The id of its thread; give it as session_id to go on with it")
    contact_id: str
    channel_id: str = Field(description="Empty: not known")
    opened_at: datetime
    last_at: datetime = Field(description="When the last message came")
    closed_at: datetime | None = Field(description="null: it is open")
    closed_by: ClosedBy | None = Field(description="idle: nobody wrote for long; agent: it came to its end")
    summary: str | None = Field(description="What was said; null until the session is closed and summed up")


class Sessions(BaseModel):
    """A contact's sessions, the latest first."""

    sessions: list[SessionView]


def sessions_router() -> APIRouter:
    """The router."""
    router = APIRouter(prefix="/v1/sessions", tags=["sessions"])

    @router.get("")
    async def list_sessions(
        service: OpenService,
        requester: Requester,
        contact_id: Annotated[str, Query(min_length=1, max_length=200)],
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
        offset: Annotated[int, Query(ge=0)] = 0,
    ) -> Sessions:
        """A contact's sessions, the latest first."""
        found = await service.sessions.list_for_contact(
            requester.tenant, contact_id, limit=limit, offset=offset
        )
        return Sessions(sessions=[_view(session) for session in found])

    @router.get("/{session_id}")
    async def get_session(session_id: str, service: OpenService, requester: Requester) -> SessionView:
        """One session."""
        found = await service.sessions.get(requester.tenant, session_id)
        if found is None:
            raise NotFound(f"there is no session {session_id!r}", details={"id": session_id})
        return _view(found)

    return router


def _view(session: Session) -> SessionView:
    return SessionView(**{name: getattr(session, name) for name in SessionView.model_fields})
