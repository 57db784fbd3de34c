"""``/runs/crons``: runs that begin again and again."""

from typing import Annotated, Any, Final, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Response
from pydantic import AwareDatetime, ConfigDict, Field, ValidationError

from core.errors import BadRequest
from service.agent_server.crons import Cron
from service.agent_server.run_body import RunBody
from service.auth.principal import Identity
from service.errors import invalid_request
from service.lifespan import Service
from service.routes.agent_server.http import (
    AgentServerRoute,
    JsonResponse,
    ThreadId,
    page_response,
    select_fields,
)
from service.routes.agent_server.models import Body, Metadata, Page
from service.routes.dependencies import OpenService, Requester

FIELDS: Final = (
    "cron_id",
    "assistant_id",
    "thread_id",
    "on_run_completed",
    "end_time",
    "schedule",
    "timezone",
    "created_at",
    "updated_at",
    "payload",
    "user_id",
    "next_run_date",
    "metadata",
    "enabled",
)
CronId = Annotated[UUID, Path(description="The cron")]


class CronBody(RunBody):
    """A cron: the body of its runs, and when they begin."""

    schedule: str = Field(max_length=200, description="Five fields, as in crontab(5)")
    timezone: str | None = Field(None, max_length=100, description="IANA name; none: UTC")
    end_time: AwareDatetime | None = None
    enabled: bool = True
    on_run_completed: Literal["delete", "keep"] | None = Field(
        None, description="What becomes of the thread of each run"
    )


class CronPatch(Body):
    """A change of a cron: of its times, or of the body of its runs."""

    model_config = ConfigDict(extra="allow")

    schedule: str | None = Field(None, max_length=200)
    timezone: str | None = Field(None, max_length=100)
    end_time: AwareDatetime | None = None
    enabled: bool | None = None
    on_run_completed: Literal["delete", "keep"] | None = None
    metadata: Metadata | None = None


class CronCount(Body):
    """Which crons."""

    assistant_id: str | None = Field(None, max_length=200)
    thread_id: UUID | None = None
    metadata: Metadata = Field(default_factory=dict)


class CronSearch(CronCount, Page):
    """Which crons, and how they are listed."""

    enabled: bool | None = None
    sort_by: Literal["created_at"] = "created_at"
    sort_order: Literal["desc"] = "desc"
    select: list[str] | None = None


_TIMES: Final = ("schedule", "timezone", "end_time", "enabled", "on_run_completed")


def crons_router() -> APIRouter:
    """Return the router."""
    router = APIRouter(tags=["crons"], route_class=AgentServerRoute)

    @router.post("/threads/{thread_id}/runs/crons")
    async def create_thread_cron(
        thread_id: ThreadId, body: CronBody, service: OpenService, requester: Requester
    ) -> Response:
        """Have runs begin again and again on a thread."""
        await service.threads.get(requester.tenant, thread_id)
        return JsonResponse(await _create(service, requester, body, str(thread_id)))

    @router.post("/runs/crons")
    async def create_cron(body: CronBody, service: OpenService, requester: Requester) -> Response:
        """Have runs begin again and again, each on a new thread."""
        return JsonResponse(await _create(service, requester, body, None))

    @router.post("/runs/crons/search")
    async def search_crons(body: CronSearch, service: OpenService, requester: Requester) -> Response:
        """List crons, the latest first."""
        filters = await _build_filters(service, requester, body)
        rows = await service.crons.search(
            requester.tenant, {**filters, "enabled": body.enabled}, limit=body.limit, offset=body.offset
        )
        shown = [select_fields(row, body.select, FIELDS) for row in rows]
        return page_response(shown, limit=body.limit, offset=body.offset)

    @router.post("/runs/crons/count")
    async def count_crons(body: CronCount, service: OpenService, requester: Requester) -> int:
        """Count crons."""
        return await service.crons.count(requester.tenant, await _build_filters(service, requester, body))

    @router.get("/runs/crons/{cron_id}")
    async def get_cron(cron_id: CronId, service: OpenService, requester: Requester) -> Response:
        """Return a cron."""
        return JsonResponse(_show(await service.crons.get(requester.tenant, cron_id)))

    @router.patch("/runs/crons/{cron_id}")
    async def update_cron(
        cron_id: CronId, body: CronPatch, service: OpenService, requester: Requester
    ) -> Response:
        """Change a cron; an `end_time` of null removes it."""
        given = body.model_dump(exclude_unset=True)
        if not given:
            raise BadRequest("name at least one field to change")
        known = await service.crons.get(requester.tenant, cron_id)
        changed = {name: value for name, value in given.items() if name not in {*_TIMES, "metadata"}}
        await _check_run(service, requester, {**known["payload"], **changed}, known["thread_id"])
        times: dict[str, Any] = {name: given[name] for name in (*_TIMES, "metadata") if name in given}
        updated = await service.crons.update(requester.tenant, cron_id, {**times, "payload": changed})
        return JsonResponse(_show(updated))

    @router.delete("/runs/crons/{cron_id}", status_code=204)
    async def delete_cron(cron_id: CronId, service: OpenService, requester: Requester) -> None:
        """Delete a cron."""
        await service.crons.delete(requester.tenant, cron_id)

    return router


async def _create(
    service: Service, identity: Identity, body: CronBody, thread_id: str | None
) -> dict[str, Any]:
    assistant = await service.assistants.resolve(identity.tenant, body.assistant_id)
    times = body.model_dump(include=set(_TIMES))
    run = await _check_run(service, identity, body.model_dump(exclude=set(_TIMES)), thread_id)
    cron = await service.crons.create(
        identity, {**times, "thread_id": thread_id}, run, assistant_id=assistant["assistant_id"]
    )
    return _show(cron)


async def _check_run(
    service: Service, identity: Identity, body: dict[str, Any], thread_id: str | None
) -> RunBody:
    """Return the body of a cron's runs. What is wrong with it is said now, and not when nobody listens."""
    try:
        run = RunBody.model_validate(body)
    except ValidationError as error:
        raise invalid_request(error.errors(include_url=False, include_context=False)) from None
    await service.run_builder.build(identity, run, thread_id=thread_id or str(UUID(int=0)))
    return run


async def _build_filters(service: Service, identity: Identity, body: CronCount) -> dict[str, Any]:
    assistant_id = body.assistant_id
    if assistant_id:
        assistant = await service.assistants.resolve(identity.tenant, assistant_id)
        assistant_id = assistant["assistant_id"]
    thread_id = str(body.thread_id) if body.thread_id else None
    return {"assistant_id": assistant_id, "thread_id": thread_id, "metadata": body.metadata}


def _show(cron: Cron) -> dict[str, Any]:
    return select_fields(cron, None, FIELDS)
