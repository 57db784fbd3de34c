"""Notice that a client has gone while its answer is being made."""

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

from fastapi import Request, Response

# nginx's "client closed request"; nobody reads it but the log.
CLIENT_CLOSED_REQUEST = 499


async def until_gone(request: Request, answer: Coroutine[Any, Any, Response]) -> Response:
    """The answer, unless the client goes away first: then what makes it is cancelled.

    Cancelling a run's listener stops the run at its next step (see :mod:`service.runs.executor`).
    """
    # The body first: what follows it on the wire can only be the client's leaving.
    await request.body()
    making = asyncio.ensure_future(answer)
    gone = asyncio.create_task(_gone(request))
    try:
        await asyncio.wait({making, gone}, return_when=asyncio.FIRST_COMPLETED)
        if making.done():
            return making.result()
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    finally:
        for task in (making, gone):
            if task.cancel():
                with contextlib.suppress(asyncio.CancelledError):
                    await task


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
