"""What the CRM's routes have in common."""

from typing import Annotated, Any, TypeAlias

from fastapi import APIRouter, Depends, Header, Request, Response, Security
from fastapi.security import HTTPBearer

from core.postgres import Pool
from dev_crm.idempotency import Answer
from dev_crm.schemas import Problem

# ApiAccess does the checking; the scheme is here so that the docs page can ask for the key.
_bearer = HTTPBearer(auto_error=False, description="The CRM's API key")


def api_router() -> APIRouter:
    """A router that describes what every route may refuse with."""
    return APIRouter(
        dependencies=[Security(_bearer)],
        responses={
            401: {"model": Problem, "description": "No key, or a wrong one"},
            422: {"model": Problem, "description": "The request does not fit"},
            429: {"model": Problem, "description": "Over the rate limit; Retry-After says how long to wait"},
            503: {"model": Problem, "description": "The database does not answer"},
        },
    )


def _pool(request: Request) -> Pool:
    pool: Pool = request.app.state.pool
    return pool


PoolOf = Annotated[Pool, Depends(_pool)]
IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=200,
        pattern=r"^[\x20-\x7E]+$",
        description="The same key and body again: the first answer again, and no second effect",
    ),
]
Responses: TypeAlias = dict[int | str, dict[str, Any]]
NOT_FOUND: Responses = {404: {"model": Problem, "description": "No such contact"}}
WRITE_REFUSALS: Responses = {
    **NOT_FOUND,
    409: {"model": Problem, "description": "The key was used with another body"},
}


def respond(answer: Answer) -> Response:
    """The answer of a write, marked when an earlier request did the work."""
    headers = {"Idempotency-Replayed": "true"} if answer.replayed else None
    return Response(answer.body, answer.status, headers, media_type="application/json")
