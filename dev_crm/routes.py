"""The CRM's API, version 1."""

from typing import Annotated
from uuid import UUID

from fastapi import Path, Query, Response
from pydantic import AfterValidator, AwareDatetime

from dev_crm import sales_store, support_store
from dev_crm.api import NOT_FOUND, WRITE_REFUSALS, PoolDependency, Problem, Responses, create_router
from dev_crm.idempotency import IdempotencyKey, write_once
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
from dev_crm.support_schemas import (
    ArticleRevisions,
    Articles,
    Contact,
    ContactOverview,
    EngineeringTicket,
    EngineeringTickets,
    Message,
    Messages,
    NewEngineeringTicket,
    NewMessage,
    Status,
    Subscription,
    Tickets,
)

MAX_QUERY_CHARACTERS = 2_000

router = create_router()


def _clean_query(text: str) -> str:
    # Postgres cannot store NUL in text.
    return text.replace("\x00", " ").strip()[:MAX_QUERY_CHARACTERS]


def _require_words(query: str) -> str:
    if not query:
        raise ValueError("say what to look for")
    return query


Words = Annotated[
    str,
    AfterValidator(_clean_query),
    Query(
        description=f"Words, any of which may match; only the first {MAX_QUERY_CHARACTERS} characters count"
    ),
]
Limit = Annotated[int, Query(ge=1, le=100)]
Include = Annotated[str, Query(description="Comma-separated: subscription, tickets")]
LogLimit = Annotated[int, Query(ge=1, le=200)]
OpportunityId = Annotated[str, Path(pattern="^[A-Za-z0-9-]{1,60}$")]

_NO_OPPORTUNITY: Responses = {404: {"model": Problem, "description": "No such opportunity of this contact"}}
_CLOSED: Responses = {
    409: {"model": Problem, "description": "The opportunity is closed, or the key was used with another body"}
}


@router.get("/contacts/{contact_id}", response_model=ContactOverview, responses=NOT_FOUND, tags=["contacts"])
async def get_contact(contact_id: UUID, pool: PoolDependency, include: Include = "") -> Response:
    """Return a contact, with the subscription and the newest tickets where ``include`` names them."""
    asked = frozenset(include.split(","))
    async with pool.connection() as connection:
        found = await support_store.get_overview(connection, contact_id, include=asked)
    left_out = {"subscription", "tickets"} - asked
    return Response(found.model_dump_json(exclude=left_out), media_type="application/json")


@router.patch(
    "/contacts/{contact_id}/profile", response_model=Contact, responses=WRITE_REFUSALS, tags=["contacts"]
)
async def update_profile(
    contact_id: UUID, changes: ProfileChanges, pool: PoolDependency, idempotency_key: IdempotencyKey = None
) -> Response:
    """Record what was learned about a customer; fields that are null or left out stay as they are."""
    return await write_once(
        pool,
        endpoint=f"contacts/{contact_id}/profile",
        key=idempotency_key,
        new=changes,
        write=lambda connection, new: sales_store.update_profile(connection, contact_id, new),
        status=200,
    )


@router.get("/contacts/{contact_id}/subscription", responses=NOT_FOUND, tags=["contacts"])
async def get_subscription(contact_id: UUID, pool: PoolDependency) -> Subscription:
    """Return a contact's plan, product version and usage."""
    async with pool.connection() as connection:
        return await support_store.get_subscription(connection, contact_id)


@router.get("/contacts/{contact_id}/tickets", responses=NOT_FOUND, tags=["contacts"])
async def list_tickets(contact_id: UUID, pool: PoolDependency, q: Words = "", limit: Limit = 20) -> Tickets:
    """List a contact's support tickets, newest first."""
    async with pool.connection() as connection:
        return Tickets(tickets=await support_store.list_tickets(connection, contact_id, q=q, limit=limit))


@router.get("/knowledge-base/search", tags=["knowledge base"])
async def search_knowledge_base(
    q: Annotated[Words, AfterValidator(_require_words)],
    pool: PoolDependency,
    limit: Annotated[int, Query(ge=1, le=50)] = 5,
) -> Articles:
    """Search the knowledge-base articles in English and Portuguese, best match first."""
    async with pool.connection() as connection:
        return Articles(articles=await support_store.search_articles(connection, q, limit=limit))


@router.get("/knowledge-base/articles", tags=["knowledge base"])
async def list_articles(
    pool: PoolDependency,
    updated_since: Annotated[
        AwareDatetime | None, Query(description="Only what changed then or later")
    ] = None,
    after: Annotated[str, AfterValidator(_clean_query), Query(description="The previous page's next")] = "",
    limit: Limit = 100,
) -> ArticleRevisions:
    """List the articles by id, or those that changed at a time or later."""
    async with pool.connection() as connection:
        return await support_store.list_articles(
            connection, updated_since=updated_since, after=after, limit=limit
        )


@router.get("/status", tags=["status"])
async def get_status(pool: PoolDependency) -> Status:
    """Return the status page."""
    async with pool.connection() as connection:
        return await support_store.get_status(connection)


@router.post(
    "/engineering-tickets",
    status_code=201,
    response_model=EngineeringTicket,
    responses=WRITE_REFUSALS,
    tags=["engineering tickets"],
)
async def create_engineering_ticket(
    new: NewEngineeringTicket, pool: PoolDependency, idempotency_key: IdempotencyKey = None
) -> Response:
    """Report a problem to engineering."""
    return await write_once(
        pool,
        endpoint="engineering-tickets",
        key=idempotency_key,
        new=new,
        write=support_store.add_engineering_ticket,
    )


@router.get("/engineering-tickets", responses=NOT_FOUND, tags=["engineering tickets"])
async def list_engineering_tickets(
    pool: PoolDependency, contact_id: UUID | None = None, limit: LogLimit = 50
) -> EngineeringTickets:
    """List engineering tickets, newest first: a contact's, or everyone's."""
    async with pool.connection() as connection:
        return EngineeringTickets(
            engineering_tickets=await support_store.list_engineering_tickets(
                connection, contact_id, limit=limit
            )
        )


@router.post(
    "/messages", status_code=201, response_model=Message, responses=WRITE_REFUSALS, tags=["messages"]
)
async def create_message(
    new: NewMessage, pool: PoolDependency, idempotency_key: IdempotencyKey = None
) -> Response:
    """Send a contact a message, or store one of theirs."""
    return await write_once(
        pool, endpoint="messages", key=idempotency_key, new=new, write=support_store.add_message
    )


@router.get("/messages", responses=NOT_FOUND, tags=["messages"])
async def list_messages(
    pool: PoolDependency, contact_id: UUID | None = None, limit: LogLimit = 50
) -> Messages:
    """List messages, newest first: a contact's, or everyone's."""
    async with pool.connection() as connection:
        return Messages(messages=await support_store.list_messages(connection, contact_id, limit=limit))


@router.get("/contacts/{contact_id}/opportunities", responses=NOT_FOUND, tags=["opportunities"])
async def list_opportunities(contact_id: UUID, pool: PoolDependency, limit: Limit = 20) -> Opportunities:
    """List a contact's opportunities, newest first."""
    async with pool.connection() as connection:
        return Opportunities(
            opportunities=await sales_store.list_opportunities(connection, contact_id, limit=limit)
        )


@router.get(
    "/contacts/{contact_id}/opportunities/{opportunity_id}", responses=_NO_OPPORTUNITY, tags=["opportunities"]
)
async def get_opportunity(
    contact_id: UUID, opportunity_id: OpportunityId, pool: PoolDependency
) -> Opportunity:
    """Return an opportunity of a contact."""
    async with pool.connection() as connection:
        return await sales_store.get_opportunity(connection, contact_id, opportunity_id)


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
    pool: PoolDependency,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Change an opportunity; fields that are null or left out stay as they are."""
    return await write_once(
        pool,
        endpoint=f"contacts/{contact_id}/opportunities/{opportunity_id}",
        key=idempotency_key,
        new=changes,
        write=lambda connection, new: sales_store.update_opportunity(
            connection, contact_id, opportunity_id, new
        ),
        status=200,
    )


@router.get("/contacts/{contact_id}/orders", responses=NOT_FOUND, tags=["orders and invoices"])
async def list_orders(contact_id: UUID, pool: PoolDependency, limit: Limit = 20) -> Orders:
    """List a contact's orders, newest first."""
    async with pool.connection() as connection:
        return Orders(orders=await sales_store.list_orders(connection, contact_id, limit=limit))


@router.get("/contacts/{contact_id}/invoices", responses=NOT_FOUND, tags=["orders and invoices"])
async def list_invoices(contact_id: UUID, pool: PoolDependency, limit: Limit = 20) -> Invoices:
    """List a contact's invoices, newest first."""
    async with pool.connection() as connection:
        return Invoices(invoices=await sales_store.list_invoices(connection, contact_id, limit=limit))


@router.post(
    "/contacts/{contact_id}/follow-ups",
    status_code=201,
    response_model=FollowUp,
    responses=WRITE_REFUSALS,
    tags=["follow-ups and handoffs"],
)
async def create_follow_up(
    contact_id: UUID, new: NewFollowUp, pool: PoolDependency, idempotency_key: IdempotencyKey = None
) -> Response:
    """Schedule a follow-up with a contact."""
    return await write_once(
        pool,
        endpoint=f"contacts/{contact_id}/follow-ups",
        key=idempotency_key,
        new=new,
        write=lambda connection, new: sales_store.add_follow_up(connection, contact_id, new),
    )


@router.get("/contacts/{contact_id}/follow-ups", responses=NOT_FOUND, tags=["follow-ups and handoffs"])
async def list_follow_ups(contact_id: UUID, pool: PoolDependency, limit: Limit = 20) -> FollowUps:
    """List the follow-ups scheduled with a contact, newest first."""
    async with pool.connection() as connection:
        return FollowUps(follow_ups=await sales_store.list_follow_ups(connection, contact_id, limit=limit))


@router.post(
    "/contacts/{contact_id}/handoffs",
    status_code=201,
    response_model=Handoff,
    responses=WRITE_REFUSALS,
    tags=["follow-ups and handoffs"],
)
async def create_handoff(
    contact_id: UUID, new: NewHandoff, pool: PoolDependency, idempotency_key: IdempotencyKey = None
) -> Response:
    """Hand a contact's conversation over to the people of a team."""
    return await write_once(
        pool,
        endpoint=f"contacts/{contact_id}/handoffs",
        key=idempotency_key,
        new=new,
        write=lambda connection, new: sales_store.add_handoff(connection, contact_id, new),
    )


@router.get("/contacts/{contact_id}/handoffs", responses=NOT_FOUND, tags=["follow-ups and handoffs"])
async def list_handoffs(contact_id: UUID, pool: PoolDependency, limit: Limit = 20) -> Handoffs:
    """List the handoffs of a contact's conversations, newest first."""
    async with pool.connection() as connection:
        return Handoffs(handoffs=await sales_store.list_handoffs(connection, contact_id, limit=limit))
