"""The part of the CRM's API, version 1, that sales and service use."""

from typing import Annotated
from uuid import UUID

from fastapi import Path, Query, Response

from dev_crm import sales_store as store
from dev_crm.idempotency import OK, write_once
from dev_crm.routing import NOT_FOUND, WRITE_REFUSALS, IdempotencyKey, PoolOf, Responses, api_router, respond
from dev_crm.sales_schemas import (
    FollowUp,
    FollowUps,
    Handoff,
    Handoffs,
    Invoices,
    NewFollowUp,
    NewHandoff,
    Opportunities,
    Opportunity,
    OpportunityChanges,
    Orders,
    ProfileChanges,
)
from dev_crm.schemas import Contact, Problem

router = api_router()

Limit = Annotated[int, Query(ge=1, le=100)]
OpportunityId = Annotated[str, Path(pattern="^[A-Za-z0-9-]{1,60}$")]

_NO_OPPORTUNITY: Responses = {404: {"model": Problem, "description": "No such opportunity of this contact"}}
_CLOSED: Responses = {
    409: {"model": Problem, "description": "The opportunity is closed, or the key was used with another body"}
}


@router.patch(
    "/contacts/{contact_id}/profile", response_model=Contact, responses=WRITE_REFUSALS, tags=["contacts"]
)
async def update_profile(
    contact_id: UUID, changes: ProfileChanges, pool: PoolOf, idempotency_key: IdempotencyKey = None
) -> Response:
    """Keep what was learned of a customer; what is null or left out stays as it is."""
    answer = await write_once(
        pool,
        endpoint=f"contacts/{contact_id}/profile",
        key=idempotency_key,
        new=changes,
        write=lambda connection, new: store.update_profile(connection, contact_id, new),
        status=OK,
    )
    return respond(answer)


@router.get("/contacts/{contact_id}/opportunities", responses=NOT_FOUND, tags=["opportunities"])
async def list_opportunities(contact_id: UUID, pool: PoolOf, limit: Limit = 20) -> Opportunities:
    """A contact's opportunities, newest first."""
    async with pool.connection() as connection:
        return Opportunities(opportunities=await store.opportunities(connection, contact_id, limit=limit))


@router.get(
    "/contacts/{contact_id}/opportunities/{opportunity_id}", responses=_NO_OPPORTUNITY, tags=["opportunities"]
)
async def get_opportunity(contact_id: UUID, opportunity_id: OpportunityId, pool: PoolOf) -> Opportunity:
    """An opportunity of a contact."""
    async with pool.connection() as connection:
        return await store.opportunity(connection, contact_id, opportunity_id)


@router.patch(
    "/contacts/{contact_id}/opportunities/{opportunity_id}",
    response_model=Opportunity,
    responses={**_NO_OPPORTUNITY, **_CLOSED},
    tags=["opportunities"],
)
async def update_opportunity(
    contact_id: UUID,
    opportunity_id: OpportunityId,
    changes: OpportunityChanges,
    pool: PoolOf,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Change what is new of an opportunity; what is null or left out stays as it is."""
    answer = await write_once(
        pool,
        endpoint=f"contacts/{contact_id}/opportunities/{opportunity_id}",
        key=idempotency_key,
        new=changes,
        write=lambda connection, new: store.update_opportunity(connection, contact_id, opportunity_id, new),
        status=OK,
    )
    return respond(answer)


@router.get("/contacts/{contact_id}/orders", responses=NOT_FOUND, tags=["orders and invoices"])
async def list_orders(contact_id: UUID, pool: PoolOf, limit: Limit = 20) -> Orders:
    """A contact's orders, newest first."""
    async with pool.connection() as connection:
        return Orders(orders=await store.orders(connection, contact_id, limit=limit))


@router.get("/contacts/{contact_id}/invoices", responses=NOT_FOUND, tags=["orders and invoices"])
async def list_invoices(contact_id: UUID, pool: PoolOf, limit: Limit = 20) -> Invoices:
    """A contact's invoices, newest first."""
    async with pool.connection() as connection:
        return Invoices(invoices=await store.invoices(connection, contact_id, limit=limit))


@router.post(
    "/contacts/{contact_id}/follow-ups",
    status_code=201,
    response_model=FollowUp,
    responses=WRITE_REFUSALS,
    tags=["follow-ups and handoffs"],
)
async def create_follow_up(
    contact_id: UUID, new: NewFollowUp, pool: PoolOf, idempotency_key: IdempotencyKey = None
) -> Response:
    """Plan to come back to something with a contact."""
    answer = await write_once(
        pool,
        endpoint=f"contacts/{contact_id}/follow-ups",
        key=idempotency_key,
        new=new,
        write=lambda connection, new: store.add_follow_up(connection, contact_id, new),
    )
    return respond(answer)


@router.get("/contacts/{contact_id}/follow-ups", responses=NOT_FOUND, tags=["follow-ups and handoffs"])
async def list_follow_ups(contact_id: UUID, pool: PoolOf, limit: Limit = 20) -> FollowUps:
    """The follow-ups planned with a contact, newest first."""
    async with pool.connection() as connection:
        return FollowUps(follow_ups=await store.follow_ups(connection, contact_id, limit=limit))


@router.post(
    "/contacts/{contact_id}/handoffs",
    status_code=201,
    response_model=Handoff,
    responses=WRITE_REFUSALS,
    tags=["follow-ups and handoffs"],
)
async def create_handoff(
    contact_id: UUID, new: NewHandoff, pool: PoolOf, idempotency_key: IdempotencyKey = None
) -> Response:
    """Hand a contact's conversation to the people of a team."""
    answer = await write_once(
        pool,
        endpoint=f"contacts/{contact_id}/handoffs",
        key=idempotency_key,
        new=new,
        write=lambda connection, new: store.add_handoff(connection, contact_id, new),
    )
    return respond(answer)


@router.get("/contacts/{contact_id}/handoffs", responses=NOT_FOUND, tags=["follow-ups and handoffs"])
async def list_handoffs(contact_id: UUID, pool: PoolOf, limit: Limit = 20) -> Handoffs:
    """What was handed to people of a contact's conversations, newest first."""
    async with pool.connection() as connection:
        return Handoffs(handoffs=await store.handoffs(connection, contact_id, limit=limit))
