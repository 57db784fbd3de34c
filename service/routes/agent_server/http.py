"""What the modules of this API share: its route class, JSON responses, and pages of lists."""

from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Annotated, Any, Final, TypeAlias
from uuid import UUID

from fastapi import Path, Request, Response
from fastapi.routing import APIRoute

from core.errors import InvalidRequest
from service.encoding import dump_json

Handler: TypeAlias = Callable[[Request], Coroutine[Any, Any, Response]]

MAX_LIMIT: Final = 1_000

ThreadId = Annotated[UUID, Path(description="The thread")]
RunId = Annotated[UUID, Path(description="The run")]
AssistantId = Annotated[UUID, Path(description="The assistant")]


class AgentServerRoute(APIRoute):
    """A route that reads JSON that is sent as text too, as Studio does to save a preflight."""

    def get_route_handler(self) -> Handler:
        """Wrap FastAPI's handler."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            headers = request.scope["headers"]
            if any(name == b"content-type" and value.startswith(b"text/plain") for name, value in headers):
                others = [pair for pair in headers if pair[0] != b"content-type"]
                scope = {**request.scope, "headers": [*others, (b"content-type", b"application/json")]}
                request = Request(scope, request.receive)
            return await handler(request)

        return handle


class JsonResponse(Response):
    """A response of JSON as LangGraph's clients read it."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Return the body."""
        return dump_json(content)


def page_response(rows: Sequence[Any], *, limit: int, offset: int) -> JsonResponse:
    """Return a page of a list; its headers say where the next one begins, if there may be one."""
    headers = {"X-Pagination-Total": str(offset + len(rows) + (len(rows) == limit))}
    if len(rows) == limit:
        headers["X-Pagination-Next"] = str(offset + limit)
    return JsonResponse(rows, headers=headers)


def select_fields(
    row: Mapping[str, Any], select: Iterable[str] | None, known: Iterable[str]
) -> dict[str, Any]:
    """Return some fields of a row, or all.

    Raises:
        InvalidRequest: There is no such field.
    """
    known = tuple(known)
    if select is None:
        return {name: row[name] for name in known if name in row}
    if unknown := [name for name in select if name not in known]:
        raise InvalidRequest(f"select: there is no field {unknown[0][:100]!r}; there are {', '.join(known)}")
    return {name: row[name] for name in select if name in row}
