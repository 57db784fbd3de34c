"""``/v1/memory``: search what is remembered of contacts, read facts, keep notes, and forget.

The tenant is the caller's; ``contact_id`` names whose memory it is.
"""

from dataclasses import dataclass
from typing import Annotated, TypeAlias

from fastapi import APIRouter, Depends, Query
from pydantic import AwareDatetime

from core.context import act_as
from core.errors import NotFound
from core.memory import NoteType, NoteTypeChoice, Scope, choose_note_type
from service.auth.principal import build_actor
from service.routes.dependencies import OpenService, Requester
from service.routes.memory_models import (
    CRM,
    Agent,
    ContactId,
    Erased,
    Facts,
    FactView,
    ForgetRequest,
    HitView,
    Name,
    NoteText,
    NoteView,
    OptionalName,
    RecalledNotes,
    RecallRequest,
    RememberedNote,
    RememberRequest,
    SearchRequest,
    SearchResponse,
)

Contact = Annotated[ContactId, Query()]
NoteAgent = Annotated[Agent, Query()]


def memory_router() -> APIRouter:
    """Return the router."""
    router = APIRouter(prefix="/v1/memory", tags=["memory"])

    @router.post("/search")
    async def search(body: SearchRequest, service: OpenService, requester: Requester) -> SearchResponse:
        """Search a contact's messages, summaries and facts; the newest messages are always included."""
        result = await service.memory.search(
            Scope(requester.tenant, body.contact_id),
            body.query,
            strategy=body.strategy,
            limit=body.limit,
            as_of=body.as_of,
        )
        return SearchResponse.model_validate(result)

    @router.get("/facts")
    async def list_facts(
        service: OpenService,
        requester: Requester,
        contact_id: Contact,
        subject: Annotated[OptionalName, Query()] = "",
        predicate: Annotated[OptionalName, Query()] = "",
        *,
        valid_at: Annotated[AwareDatetime | None, Query(description="Valid time; default now")] = None,
        believed_at: Annotated[
            AwareDatetime | None, Query(description="Transaction time: as believed then; default now")
        ] = None,
    ) -> Facts:
        """List the facts that were valid at one time, as they were believed at another."""
        facts = await service.memory.list_facts(
            Scope(requester.tenant, contact_id),
            subject=subject,
            predicate=predicate,
            valid_at=valid_at,
            believed_at=believed_at,
        )
        return Facts(facts=[FactView.model_validate(fact) for fact in facts])

    @router.get("/facts/history")
    async def list_fact_history(
        service: OpenService,
        requester: Requester,
        contact_id: Contact,
        subject: Annotated[OptionalName, Query()] = "",
        predicate: Annotated[OptionalName, Query()] = "",
    ) -> Facts:
        """List every fact ever believed, oldest belief first, with what superseded it."""
        facts = await service.memory.fact_history(
            Scope(requester.tenant, contact_id), subject=subject, predicate=predicate
        )
        return Facts(facts=[FactView.model_validate(fact) for fact in facts])

    @router.post("/remember")
    async def remember(body: RememberRequest, service: OpenService, requester: Requester) -> RememberedNote:
        """Keep a note; its type is chosen by its words if none is named. The same note again renews it."""
        choice = NoteTypeChoice(body.type, "you named it") if body.type else choose_note_type(body.text)
        note = await service.memory.remember(
            Scope(requester.tenant, body.contact_id),
            body.text,
            type=choice.type,
            agent=body.agent,
            key=body.key,
        )
        return RememberedNote(note=NoteView.model_validate(note), reason=choice.reason)

    @router.post("/recall")
    async def recall(body: RecallRequest, service: OpenService, requester: Requester) -> RecalledNotes:
        """List an agent's own notes and the shared ones that match a question, best first."""
        hits = await service.memory.recall(
            Scope(requester.tenant, body.contact_id), body.query, agent=body.agent, limit=body.limit
        )
        return RecalledNotes(notes=[HitView.model_validate(hit) for hit in hits])

    @router.post("/forget")
    async def forget(body: ForgetRequest, service: OpenService, requester: Requester) -> Erased:
        """Erase everything that is remembered of a contact, or what was learnt in one session.

        The conversations themselves stay until their threads are erased.
        """
        act_as(build_actor(requester, thread_id=body.session_id))
        scope = Scope(requester.tenant, body.contact_id)
        return Erased.model_validate(await service.erasure.forget_contact(scope, session_id=body.session_id))

    _add_note_routes(router)
    return router


@dataclass(frozen=True, slots=True)
class _NoteAddress:
    """Where a note with a key is: in whose memory, and under which type, agent and key."""

    scope: Scope
    type: NoteType
    agent: str
    key: str


async def _locate_note(
    requester: Requester, note_type: NoteType, key: Name, contact_id: Contact, agent: NoteAgent = CRM
) -> _NoteAddress:
    return _NoteAddress(Scope(requester.tenant, contact_id), note_type, agent, key)


_Address: TypeAlias = Annotated[_NoteAddress, Depends(_locate_note)]


def _add_note_routes(router: APIRouter) -> None:
    """Add the routes of notes with a key, which is unique for a contact, a type and an agent."""
    path = "/notes/{note_type}/{key:path}"

    @router.get(path)
    async def get_note(address: _Address, service: OpenService) -> NoteView:
        """Return the note under a key."""
        note = await service.memory.get_note(
            address.scope, address.key, type=address.type, agent=address.agent
        )
        if note is None:
            raise _note_not_found(address)
        return NoteView.model_validate(note)

    @router.put(path)
    async def set_note(address: _Address, body: NoteText, service: OpenService) -> NoteView:
        """Keep a note under a key; it replaces the one that is there."""
        note = await service.memory.remember(
            address.scope, body.text, type=address.type, agent=address.agent, key=address.key
        )
        return NoteView.model_validate(note)

    @router.delete(path, status_code=204)
    async def delete_note(address: _Address, service: OpenService) -> None:
        """Delete the note under a key."""
        if not await service.memory.delete_note(
            address.scope, address.key, type=address.type, agent=address.agent
        ):
            raise _note_not_found(address)


def _note_not_found(address: _NoteAddress) -> NotFound:
    return NotFound(
        f"there is no {address.type} note {address.key!r}",
        details={"type": address.type, "key": address.key},
    )
