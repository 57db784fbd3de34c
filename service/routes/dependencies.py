"""What routes ask for.

Coroutines, though none waits: FastAPI calls plain functions in another thread, which costs more than they do.
"""

from typing import Annotated, TypeAlias

from fastapi import Depends, Request
from starlette.requests import HTTPConnection

from core.errors import InvalidRequest
from service.auth.principal import Identity
from service.lifespan import Service


async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def get_requester(connection: HTTPConnection) -> Identity:
    """Return the caller, as :class:`service.middleware.authentication.Authentication` identified them."""
    identity: Identity = connection.state.identity
    return identity


async def _requester(request: Request) -> Identity:
    return get_requester(request)


async def require_text(request: Request) -> None:
    """Refuse NUL in paths and queries: no text of Postgres holds it. Bodies are checked with their models.

    Raises:
        InvalidRequest: There is one.
    """
    if "\0" in request.scope["path"] or b"%00" in request.scope["query_string"]:
        raise InvalidRequest("the path and the query must not have NUL (%00) in them")


Requester: TypeAlias = Annotated[Identity, Depends(_requester)]
OpenService: TypeAlias = Annotated[Service, Depends(_service)]
