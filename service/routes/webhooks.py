"""``/v1/webhooks``: where a tenant's events are sent, how that went, and sending them again."""

from datetime import datetime
from typing import Annotated, Any, Literal, TypeAlias
from uuid import UUID

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from service.outbox.catalogue import CATALOGUE, EventData, build_schema_name
from service.routes.dependencies import Offset, OpenService, Requester
from service.runs.inputs import require_storable
from service.webhooks.deliveries import Delivery, DeliveryStatus
from service.webhooks.endpoints import Endpoint

WebhookId: TypeAlias = Annotated[UUID, Path(description="The webhook's id")]
EventType: TypeAlias = Literal[tuple(CATALOGUE)]  # type: ignore[valid-type]  # the catalogue's types

_MAX_URL_CHARACTERS = 2_000


class _Fields(BaseModel):
    model_config = ConfigDict(extra="forbid")

    _storable = model_validator(mode="before")(require_storable)


class NewWebhook(_Fields):
    """A webhook to create."""

    url: str = Field(max_length=_MAX_URL_CHARACTERS, description="Where events are sent, by POST")
    types: list[EventType] | None = Field(
        None, min_length=1, max_length=100, description="The types of events to send; null: all"
    )
    description: str = Field("", max_length=500)


class WebhookChanges(_Fields):
    """What to change of a webhook; a field that is left out stays as it is."""

    url: str = Field("", max_length=_MAX_URL_CHARACTERS)
    types: list[EventType] | None = Field(None, min_length=1, max_length=100, description="null: all")
    description: str = Field("", max_length=500)
    is_enabled: bool = Field(True, description="The events of a disabled webhook wait until it is enabled")  # noqa: FBT003


class Webhook(BaseModel):
    """A webhook."""

    id: str
    url: str
    description: str
    types: list[str] | None = Field(description="The types of events it is sent; null: all")
    is_enabled: bool
    disabled_reason: str = Field(description="Why the service has disabled it; empty: it has not")
    failing_since: datetime | None = Field(description="Since when nothing has succeeded; null: it works")
    is_for_runs: bool = Field(description="Whether runs named its address, so that the service made it")
    created_at: datetime
    pending: int = Field(description="Deliveries that wait or are tried again")


class WebhookWithSecret(Webhook):
    """A webhook with its secret."""

    secret: str = Field(
        description="Verifies the header webhook-signature, as https://www.standardwebhooks.com says"
    )


class Webhooks(BaseModel):
    """The tenant's webhooks, oldest first."""

    webhooks: list[Webhook]


class DeliveryView(BaseModel):
    """An event on its way to a webhook."""

    id: str
    event_id: str = Field(description="The event, which the header webhook-id names")
    type: str
    thread_id: str = Field(description="Empty: of no thread")
    created_at: datetime = Field(description="When the event became true")
    status: DeliveryStatus = Field(description="dead: given up")
    attempts: int
    due_at: datetime | None = Field(
        description="When it is tried next; null: it waits for an earlier one of its thread, or has ended"
    )
    ended_at: datetime | None
    response_status: int | None = Field(description="HTTP status of the last attempt; null: no answer")
    error: str = Field(description="What went wrong in the last attempt; empty: nothing")


class Deliveries(BaseModel):
    """Deliveries, latest first."""

    deliveries: list[DeliveryView]
    next: int | None = Field(description="Give it as before= for the next page; null: this is the last page")


class Redelivered(BaseModel):
    """How many deliveries are sent once more."""

    deliveries: int


class EventTypeView(BaseModel):
    """A type of events."""

    type: str
    version: int
    description: str
    dataschema: str = Field(description="As the events name it")
    data: dict[str, JsonValue] = Field(description="JSON schema of an event's data")


class EventTypes(BaseModel):
    """The catalogue of events."""

    types: list[EventTypeView]


def webhooks_router() -> APIRouter:
    """Return the router."""
    router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])

    @router.get("/event-types")
    async def list_event_types() -> EventTypes:
        """List the types of events, with the schemas of their data."""
        return EventTypes(types=[_describe_type(model) for model in CATALOGUE.values()])

    @router.post("", status_code=201)
    async def create_webhook(
        webhook: NewWebhook, service: OpenService, requester: Requester
    ) -> WebhookWithSecret:
        """Create a webhook; events that become true from now on are sent to it."""
        endpoint = await service.webhooks.create(
            requester.tenant,
            url=service.webhook_sender.check_address(webhook.url),
            description=webhook.description,
            types=webhook.types,
        )
        return _build_view(endpoint)

    @router.get("")
    async def list_webhooks(
        service: OpenService,
        requester: Requester,
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
        offset: Offset = 0,
    ) -> Webhooks:
        """List the tenant's webhooks, oldest first, without their secrets."""
        found = await service.webhooks.list(requester.tenant, limit=limit, offset=offset)
        return Webhooks(webhooks=[_build_view(endpoint) for endpoint in found])

    @router.get("/{webhook_id}")
    async def get_webhook(
        webhook_id: WebhookId, service: OpenService, requester: Requester
    ) -> WebhookWithSecret:
        """Return one webhook with its secret."""
        return _build_view(await service.webhooks.get(requester.tenant, str(webhook_id)))

    @router.patch("/{webhook_id}")
    async def update_webhook(
        webhook_id: WebhookId, changes: WebhookChanges, service: OpenService, requester: Requester
    ) -> Webhook:
        """Change a webhook. Enabling one that was disabled sends what has waited."""
        values = changes.model_dump(exclude_unset=True)
        if "url" in values:
            values["url"] = service.webhook_sender.check_address(changes.url)
        return _build_view(await service.webhooks.update(requester.tenant, str(webhook_id), values))

    @router.delete("/{webhook_id}", status_code=204, response_class=Response)
    async def delete_webhook(webhook_id: WebhookId, service: OpenService, requester: Requester) -> None:
        """Delete a webhook with its deliveries; what has waited is not sent."""
        await service.webhooks.delete(requester.tenant, str(webhook_id))

    @router.post("/{webhook_id}/rotate")
    async def rotate_secret(
        webhook_id: WebhookId, service: OpenService, requester: Requester
    ) -> WebhookWithSecret:
        """Give a webhook a new secret; both sign for `WEBHOOK_ROTATION_HOURS`."""
        hours = service.settings.webhooks.rotation_hours
        return _build_view(
            await service.webhooks.rotate_secret(requester.tenant, str(webhook_id), hours=hours)
        )

    _add_delivery_routes(router)
    return router


def _add_delivery_routes(router: APIRouter) -> None:
    @router.get("/{webhook_id}/deliveries")
    async def list_deliveries(
        webhook_id: WebhookId,
        service: OpenService,
        requester: Requester,
        *,
        status: DeliveryStatus | None = None,
        before: Annotated[
            int | None, Query(ge=1, le=2**63 - 1, description="The previous page's next")
        ] = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
    ) -> Deliveries:
        """List deliveries to a webhook, latest first."""
        await service.webhooks.get(requester.tenant, str(webhook_id))
        found = await service.deliveries.list(
            requester.tenant, str(webhook_id), status=status, before=before, limit=limit + 1
        )
        page = found[:limit]
        return Deliveries(
            deliveries=[_build_delivery(delivery) for delivery in page],
            next=page[-1].position if len(found) > limit else None,
        )

    @router.post("/{webhook_id}/redeliver", status_code=202)
    async def redeliver_dead(
        webhook_id: WebhookId, service: OpenService, requester: Requester
    ) -> Redelivered:
        """Send everything that was given up once more, in the order of each thread."""
        await service.webhooks.get(requester.tenant, str(webhook_id))
        count = await service.deliveries.redeliver(requester.tenant, str(webhook_id))
        return Redelivered(deliveries=count)

    @router.post("/{webhook_id}/deliveries/{delivery_id}/redeliver", status_code=202)
    async def redeliver(
        webhook_id: WebhookId, delivery_id: UUID, service: OpenService, requester: Requester
    ) -> Redelivered:
        """Send one delivery that has ended once more, with the same `webhook-id`."""
        await service.webhooks.get(requester.tenant, str(webhook_id))
        count = await service.deliveries.redeliver(requester.tenant, str(webhook_id), str(delivery_id))
        return Redelivered(deliveries=count)


def _describe_type(model: type[EventData]) -> EventTypeView:
    schema: dict[str, Any] = model.model_json_schema()
    return EventTypeView(
        type=model.type,
        version=model.version,
        description=(model.__doc__ or "").strip(),
        dataschema=build_schema_name(model.type, model.version),
        data=schema,
    )


def _build_view(endpoint: Endpoint) -> WebhookWithSecret:
    return WebhookWithSecret(**{name: getattr(endpoint, name) for name in WebhookWithSecret.model_fields})


def _build_delivery(delivery: Delivery) -> DeliveryView:
    return DeliveryView(**{name: getattr(delivery, name) for name in DeliveryView.model_fields})
