"""``GET /v1/overview``: a tenant's conversations and runs of a period."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, BaseModel, Field

from core.errors import InvalidRequest
from service.observability.overview import OverviewReader, Period
from service.routes.dependencies import OpenService, Requester

_MAX_PARTS: Final = 200
_DEFAULT_DAYS: Final = 1


class Conversations(BaseModel):
    """Conversations that were opened in the period."""

    opened: int
    by_agents: int = Field(description="No agent handed them over and no person took them over")
    handed_over: int
    taken_over: int


class RunsOfPart(BaseModel):
    """The runs of a graph that began in a part of the period."""

    at: datetime = Field(description="The part's begin")
    graph: str
    runs: int
    failed: int
    p50: float | None = Field(description="Median time to the end, seconds; null: none has ended")
    p95: float | None


class OpenRuns(BaseModel):
    """Runs in progress and waiting, now."""

    running: int
    pending: int
    oldest_pending_seconds: float


class Overview(BaseModel):
    """A tenant's numbers."""

    since: datetime
    until: datetime
    seconds: float = Field(description="The length of a part")
    conversations: Conversations
    runs: list[RunsOfPart]
    open: OpenRuns


def overview_router() -> APIRouter:
    """Return the router."""
    router = APIRouter(prefix="/v1/overview", tags=["overview"])

    @router.get("")
    async def get_overview(
        service: OpenService,
        requester: Requester,
        *,
        since: Annotated[AwareDatetime | None, Query(description="By default a day ago")] = None,
        until: Annotated[AwareDatetime | None, Query(description="By default now")] = None,
        seconds: Annotated[float, Query(ge=60, le=31_536_000, description="The length of a part")] = 3_600,
    ) -> Overview:
        """Return a tenant's conversations and runs of a period, from the database."""
        end = until or datetime.now(UTC)
        begin = since or end - timedelta(days=_DEFAULT_DAYS)
        if not 0 < (end - begin).total_seconds() <= seconds * _MAX_PARTS:
            raise InvalidRequest(
                f"since lies before until, and at most {_MAX_PARTS} parts of `seconds`: raise seconds",
                details={"since": begin.isoformat(), "until": end.isoformat(), "seconds": seconds},
            )
        reader, period = OverviewReader(service.pool), Period(since=begin, until=end, seconds=seconds)
        return Overview(
            since=begin,
            until=end,
            seconds=seconds,
            conversations=Conversations(**await reader.count_conversations(requester.tenant, period)),
            runs=[RunsOfPart(**row) for row in await reader.count_runs(requester.tenant, period)],
            open=OpenRuns(**await reader.count_open_runs(requester.tenant, period)),
        )

    return router
