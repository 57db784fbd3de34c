"""``/v1/audit``: who did what, when, and with which outcome."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, BaseModel, Field, JsonValue

from service.audit.trail import Action, StoredEntry
from service.routes.dependencies import OpenService, Requester

# Postgres cannot store NUL in texts.
_STORABLE = r"^[^\x00]*$"


class AuditEntry(BaseModel):
    """An entry. Texts, names, addresses and numbers are redacted; only their lengths are kept."""

    id: int
    at: datetime
    user: str = Field(description="On whose behalf")
    key_id: str = Field(description="The API key they used; empty: none")
    thread_id: str = Field(description="Empty: no thread")
    run_id: str = Field(description="Empty: not done by a run")
    action: Action
    tool: str = Field(description="The tool that was called, or the graph that ran")
    effect_key: str = Field(description="The effect's idempotency key; empty: it was no effect")
    arguments: dict[str, JsonValue]
    outcome: str = Field(description="begun, finished, or another word or error code")
    details: dict[str, JsonValue]
    position: int | None = Field(
        description="Its position in the chain; null: not linked yet (about a second)"
    )
    hash: str | None = Field(description="SHA-256 over the entry and the hash before it, as hexadecimal")


class AuditPage(BaseModel):
    """Entries, latest first."""

    entries: list[AuditEntry]
    next: int | None = Field(description="Give it as before= for the next page; null: this is the last page")


def audit_router() -> APIRouter:
    """Return the router."""
    router = APIRouter(prefix="/v1/audit", tags=["audit"])

    @router.get("")
    async def list_entries(
        service: OpenService,
        requester: Requester,
        *,
        thread_id: Annotated[str | None, Query(max_length=200, pattern=_STORABLE)] = None,
        user: Annotated[str | None, Query(max_length=200, pattern=_STORABLE)] = None,
        action: Annotated[Action | None, Query()] = None,
        since: Annotated[AwareDatetime | None, Query(description="Not before")] = None,
        until: Annotated[AwareDatetime | None, Query(description="Before")] = None,
        before: Annotated[
            int | None, Query(ge=1, le=2**63 - 1, description="The previous page's next")
        ] = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
    ) -> AuditPage:
        """List what was done in the tenant, latest first."""
        entries = await service.audit.find(
            requester.tenant,
            limit=limit + 1,
            thread_id=thread_id,
            user_id=user,
            action=action,
            since=since,
            until=until,
            before=before,
        )
        page = entries[:limit]
        has_more = len(entries) > limit
        return AuditPage(
            entries=[_build_view(entry) for entry in page], next=page[-1].id if has_more else None
        )

    return router


def _build_view(entry: StoredEntry) -> AuditEntry:
    return AuditEntry(
        id=entry.id,
        at=entry.at,
        user=entry.user_id,
        key_id=entry.key_id,
        thread_id=entry.thread_id,
        run_id=entry.run_id,
        action=entry.action,
        tool=entry.tool,
        effect_key=entry.effect_key,
        arguments=entry.arguments,
        outcome=entry.outcome,
        details=entry.details,
        position=entry.position,
        hash=entry.hash.hex() if entry.hash else None,
    )
