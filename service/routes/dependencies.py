"""What several routes need: the open service, the caller, and an eye on the client.

The dependencies are coroutines although none waits: FastAPI calls plain functions in another thread, which
costs more than they do.
"""

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Annotated, Any, Final, TypeAlias

from fastapi import Depends, Query, Request, Response
from starlette.requests import HTTPConnection

from core.errors import InvalidRequest
from service.auth.principal import Identity
from service.lifespan import Service

# The thread and the run that a request started or continued.
THREAD_HEADER: Final = "X-Thread-Id"
RUN_HEADER: Final = "X-Run-Id"
# nginx's "client closed request"; only the log sees it.
CLIENT_CLOSED_REQUEST = 499


async def _get_service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def get_requester(connection: HTTPConnection) -> Identity:
    """Return the caller, as :class:`service.middleware.authentication.Authentication` identified them."""
    identity: Identity = connection.state.identity
    return identity


async def _get_requester(request: Request) -> Identity:
    return get_requester(request)


Requester: TypeAlias = Annotated[Identity, Depends(_get_requester)]
OpenService: TypeAlias = Annotated[Service, Depends(_get_service)]


# Of a list that is longer, the rest is found by narrower filters. Postgres counts to 2**63 - 1.
MAX_OFFSET: Final = 1_000_000
Offset: TypeAlias = Annotated[int, Query(ge=0, le=MAX_OFFSET, description="So many are left out")]


async def reject_nul(connection: HTTPConnection) -> None:
    """Reject NUL in paths and queries, which Postgres cannot store. Bodies are checked with their models.

    Raises:
        InvalidRequest: The path or the query holds one.
    """
    if "\0" in connection.scope["path"] or b"%00" in connection.scope["query_string"]:
        raise InvalidRequest("the path and the query must not contain NUL (%00)")


async def answer_until_disconnect(request: Request, answer: Coroutine[Any, Any, Response]) -> Response:
    """Await the answer; if the client disconnects first, cancel what makes it.

    Cancelling a run's listener stops the run at its next step (see :mod:`service.runs.executor`).
    """
    # The body first: after it, only a disconnect can come.
    await request.body()
    making = asyncio.ensure_future(answer)
    disconnect = asyncio.create_task(_wait_for_disconnect(request))
    try:
        await asyncio.wait({making, disconnect}, return_when=asyncio.FIRST_COMPLETED)
        if making.done():
            return making.result()
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    finally:
        for task in (making, disconnect):
            if task.cancel():
                with contextlib.suppress(asyncio.CancelledError):
                    await task


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
