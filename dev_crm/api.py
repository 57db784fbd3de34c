"""What all routes share: the router, the pool dependency, the refusals and the one shape of error bodies."""

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Any, TypeAlias

from fastapi import APIRouter, Depends, FastAPI, Request, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from core.errors import DatabaseUnavailable, InvalidRequest, ServiceError
from core.logging import get_logger
from core.postgres import DATABASE_UNAVAILABLE, Pool
from core.texts import make_printable

log = get_logger(__name__)

DATABASE_RETRY_SECONDS = 5

_CODES = {404: "not_found", 405: "method_not_allowed"}

# ApiAccess checks the key; the scheme is declared so that the docs page can ask for it.
_bearer = HTTPBearer(auto_error=False, description="The CRM's API key")


class Problem(BaseModel):
    """The body of every refusal and failure."""

    error: str = Field(description="Stable code")
    message: str
    details: dict[str, object]


Responses: TypeAlias = dict[int | str, dict[str, Any]]
NOT_FOUND: Responses = {404: {"model": Problem, "description": "No such contact"}}
WRITE_REFUSALS: Responses = {
    **NOT_FOUND,
    409: {"model": Problem, "description": "The key was used with another body"},
}


def _get_pool(request: Request) -> Pool:
    pool: Pool = request.app.state.pool
    return pool


PoolDependency = Annotated[Pool, Depends(_get_pool)]


class Unauthorized(ServiceError):
    """Raise when a request does not carry the API key."""

    code = "unauthorized"
    status = 401


class KeyReused(ServiceError):
    """Raise when an Idempotency-Key is reused with another body."""

    code = "idempotency_key_reused"
    status = 409


class OpportunityClosed(ServiceError):
    """Raise when a request would change an opportunity that was won or lost."""

    code = "opportunity_closed"
    status = 409


class TooManyRequests(ServiceError):
    """Raise when the key is over its rate limit; ``retry_after`` says when to try again."""

    code = "too_many_requests"
    status = 429


def create_router() -> APIRouter:
    """Return a router that documents the refusals every route may answer with."""
    return APIRouter(
        dependencies=[Security(_bearer)],
        responses={
            401: {"model": Problem, "description": "No key, or a wrong one"},
            422: {"model": Problem, "description": "The request is not valid"},
            429: {"model": Problem, "description": "Over the rate limit; Retry-After says how long to wait"},
            503: {"model": Problem, "description": "The database does not answer"},
        },
    )


def error_response(error: ServiceError, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return ``error`` as a response: ``{"error": code, "message": text, "details": {...}}``."""
    headers = dict(headers or {})
    if error.retry_after is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after))
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(_body(error.code, error.message, error.details), error.status, headers)


def install_error_handlers(app: FastAPI) -> None:
    """Give every failure of ``app`` the CRM's error body."""

    @app.exception_handler(ServiceError)
    async def _handle_service_error(_: Request, error: ServiceError) -> JSONResponse:
        return error_response(error)

    @app.exception_handler(RequestValidationError)
    async def _handle_invalid_request(_: Request, error: RequestValidationError) -> JSONResponse:
        return error_response(_invalid_request(error))

    @app.exception_handler(HTTPException)
    async def _handle_http_exception(request: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == HTTPStatus.BAD_REQUEST:
            # FastAPI answers 400 to a body that is not even text; callers see it as "not JSON".
            return error_response(InvalidRequest("The body is not JSON."))
        code = _CODES.get(error.status_code, "http_error")
        target = make_printable(f"{request.method} {request.url.path}")
        docs = f"{request.scope.get('root_path', '')}/docs"
        message = f"{error.detail}: {target!r}. The API is described at {docs!r}."
        return JSONResponse(_body(code, message, {}), error.status_code, error.headers)

    async def handle_unavailable(request: Request, error: Exception) -> JSONResponse:
        log.warning(
            "crm_database_unavailable", path=request.url.path, kind=type(error).__name__, reason=str(error)
        )
        return error_response(
            DatabaseUnavailable(
                "The CRM's database does not answer. Try again.", retry_after=DATABASE_RETRY_SECONDS
            )
        )

    for kind in DATABASE_UNAVAILABLE:
        app.add_exception_handler(kind, handle_unavailable)

    @app.exception_handler(Exception)
    async def _handle_unexpected(request: Request, error: Exception) -> JSONResponse:
        # A client within the process gets only this response, so the traceback has to be logged here.
        log.error("crm_failed", path=request.url.path, exc_info=error)
        return error_response(ServiceError("The CRM failed. Its log says why."))


def _invalid_request(error: RequestValidationError) -> InvalidRequest:
    # The invalid input itself is left out: it may be large and may not be encodable.
    faults = [
        {
            "field": make_printable(".".join(map(str, fault["loc"]))),
            "message": make_printable(fault["msg"].removeprefix("Value error, ")),
        }
        for fault in error.errors()
    ]
    message = "; ".join(f"{fault['field']}: {fault['message']}" for fault in faults)
    return InvalidRequest(message, details={"errors": faults})


def _body(code: str, message: str, details: Mapping[str, object]) -> dict[str, object]:
    return {"error": code, "message": message, "details": details}
