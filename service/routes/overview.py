"""``GET /v1/overview``: a tenant's conversations and runs of a period."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, BaseModel, Field

from core.errors import InvalidRequest
from service.observability.overview import OverviewReader, Period
from service.routes.dependencies import OpenService, Requester

_MAX_PARTS: Final = 200
# A price is for so many tokens.
_TOKENS_OF_PRICE: Final = 1_000_000
_DEFAULT_DAYS: Final = 1
_FIRST_YEAR: Final = 1970
_LAST_YEAR: Final = 9_000


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


class Percentiles(BaseModel):
    """Seconds; null: there were none."""

    p50: float | None
    p95: float | None


class ModelUse(BaseModel):
    """The tokens of a model, as its provider counted them."""

    model: str
    input: int
    output: int
    cost: float | None = Field(description="By MODEL_PRICES; null: the model has no price there")


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
    first_token: Percentiles = Field(description="From a run's start to the first token of any model")
    models: list[ModelUse]
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
        for given in filter(None, (since, until)):
            if not _FIRST_YEAR <= given.year <= _LAST_YEAR:
                raise InvalidRequest(f"since and until lie in the years {_FIRST_YEAR} to {_LAST_YEAR}")
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
            first_token=Percentiles(**await reader.measure_first_tokens(requester.tenant, period)),
            models=[
                _price(row, service.settings.models.model_prices)
                for row in await reader.count_tokens(requester.tenant, period)
            ],
            open=OpenRuns(**await reader.count_open_runs(requester.tenant, period)),
        )

    return router


def _price(row: Mapping[str, Any], prices: Mapping[str, tuple[float, float]]) -> ModelUse:
    price = prices.get(row["model"])
    cost = None if price is None else (row["input"] * price[0] + row["output"] * price[1]) / _TOKENS_OF_PRICE
    return ModelUse(**row, cost=cost)
