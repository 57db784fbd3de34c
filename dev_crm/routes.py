"""The CRM's API, version 1."""

from typing import Annotated
from uuid import UUID

from fastapi import Query, Response
from pydantic import AfterValidator

from dev_crm import store
from dev_crm.idempotency import write_once
from dev_crm.routing import NOT_FOUND, WRITE_REFUSALS, IdempotencyKey, PoolOf, api_router, respond
from dev_crm.schemas import (
    Articles,
    Contact,
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

LONGEST_QUERY = 2_000

router = api_router()


def _words(text: str) -> str:
    # Postgres has no NUL in text.
    return text.replace("\x00", " ").strip()[:LONGEST_QUERY]


def _not_empty(words: str) -> str:
    if not words:
        raise ValueError("say what to look for")
    return words


Words = Annotated[
    str,
    AfterValidator(_words),
    Query(description=f"Words, any of which may match; the first {LONGEST_QUERY} characters count"),
]


@router.get("/contacts/{contact_id}", responses=NOT_FOUND, tags=["contacts"])
async def get_contact(contact_id: UUID, pool: PoolOf) -> Contact:
    """A contact."""
    async with pool.connection() as connection:
        return await store.contact(connection, contact_id)


@router.get("/contacts/{contact_id}/subscription", responses=NOT_FOUND, tags=["contacts"])
async def get_subscription(contact_id: UUID, pool: PoolOf) -> Subscription:
    """A contact's plan, product version and usage."""
    async with pool.connection() as connection:
        return await store.subscription(connection, contact_id)


@router.get("/contacts/{contact_id}/tickets", responses=NOT_FOUND, tags=["contacts"])
async def list_tickets(
    contact_id: UUID,
    pool: PoolOf,
    q: Words = "",
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> Tickets:
    """A contact's support tickets, newest first."""
    async with pool.connection() as connection:
        return Tickets(tickets=await store.tickets(connection, contact_id, q=q, limit=limit))


@router.get("/knowledge-base/search", tags=["knowledge base"])
async def search_knowledge_base(
    q: Annotated[Words, AfterValidator(_not_empty)],
    pool: PoolOf,
    limit: Annotated[int, Query(ge=1, le=50)] = 5,
) -> Articles:
    """Knowledge-base articles in English and Portuguese, best first."""
    async with pool.connection() as connection:
        return Articles(articles=await store.search_articles(connection, q, limit=limit))


@router.get("/status", tags=["status"])
async def get_status(pool: PoolOf) -> Status:
    """The status page."""
    async with pool.connection() as connection:
        return await store.status(connection)


@router.post(
    "/engineering-tickets",
    status_code=201,
    response_model=EngineeringTicket,
    responses=WRITE_REFUSALS,
    tags=["engineering tickets"],
)
async def create_engineering_ticket(
    new: NewEngineeringTicket, pool: PoolOf, idempotency_key: IdempotencyKey = None
) -> Response:
    """Tell the engineers about a problem."""
    answer = await write_once(
        pool,
        endpoint="engineering-tickets",
        key=idempotency_key,
        new=new,
        write=store.add_engineering_ticket,
    )
    return respond(answer)


@router.get("/engineering-tickets", responses=NOT_FOUND, tags=["engineering tickets"])
async def list_engineering_tickets(
    pool: PoolOf,
    contact_id: UUID | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> EngineeringTickets:
    """Engineering tickets, newest first: a contact's, or everyone's."""
    async with pool.connection() as connection:
        return EngineeringTickets(
            engineering_tickets=await store.engineering_tickets(connection, contact_id, limit=limit)
        )


@router.post(
    "/messages", status_code=201, response_model=Message, responses=WRITE_REFUSALS, tags=["messages"]
)
async def create_message(new: NewMessage, pool: PoolOf, idempotency_key: IdempotencyKey = None) -> Response:
    """Send a contact a message, or keep one of theirs."""
    answer = await write_once(
        pool, endpoint="messages", key=idempotency_key, new=new, write=store.add_message
    )
    return respond(answer)


@router.get("/messages", responses=NOT_FOUND, tags=["messages"])
async def list_messages(
    pool: PoolOf,
    contact_id: UUID | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> Messages:
    """Messages, newest first: a contact's, or everyone's."""
    async with pool.connection() as connection:
        return Messages(messages=await store.messages(connection, contact_id, limit=limit))
