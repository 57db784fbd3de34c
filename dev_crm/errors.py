"""What the CRM refuses with, and the one shape of its error bodies."""

import math
from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from psycopg import Error as DatabaseError
from starlette.exceptions import HTTPException

from core.errors import DatabaseUnavailable, InvalidRequest, ServiceError
from core.logging import get_logger
from core.texts import make_printable

log = get_logger(__name__)

DATABASE_RETRY_SECONDS = 5

_CODES = {404: "not_found", 405: "method_not_allowed"}


class Unauthorized(ServiceError):
    """Raise when a request does not carry the API key."""

    code = "unauthorized"
    status = 401


class KeyReused(ServiceError):
    """Raise when an Idempotency-Key comes back with another body."""

    code = "idempotency_key_reused"
    status = 409


class OpportunityClosed(ServiceError):
    """Raise when an opportunity that was won or lost is to be changed."""

    code = "opportunity_closed"
    status = 409


class TooManyRequests(ServiceError):
    """Raise when the key is over its rate; ``retry_after`` says when it is not."""

    code = "too_many_requests"
    status = 429


def error_response(error: ServiceError, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """``error`` as an answer: ``{"error": code, "message": text, "details": {...}}``."""
    headers = dict(headers or {})
    if error.retry_after is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after))
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(_body(error.code, error.message, error.details), error.status, headers)


def install_error_handlers(app: FastAPI) -> None:
    """Give every failure of ``app`` the CRM's error body."""

    @app.exception_handler(ServiceError)
    async def _refused(_: Request, error: ServiceError) -> JSONResponse:
        return error_response(error)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return error_response(_invalid_request(error))

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == HTTPStatus.BAD_REQUEST:
            # FastAPI's answer to a body that is not even text: to a caller the same as "not JSON".
            return error_response(InvalidRequest("The body is not JSON."))
        code = _CODES.get(error.status_code, "http_error")
        asked = make_printable(f"{request.method} {request.url.path}")
        docs = f"{request.scope.get('root_path', '')}/docs"
        message = f"{error.detail}: {asked!r}. What there is is described at {docs!r}."
        return JSONResponse(_body(code, message, {}), error.status_code, error.headers)

    @app.exception_handler(DatabaseError)
    async def _database(request: Request, error: DatabaseError) -> JSONResponse:
        log.warning(
            "crm_database_failed", path=request.url.path, kind=type(error).__name__, reason=str(error)
        )
        return error_response(
            DatabaseUnavailable(
                "The CRM's database does not answer. Try again.", retry_after=DATABASE_RETRY_SECONDS
            )
        )

    @app.exception_handler(Exception)
    async def _unexpected(_: Request, __: Exception) -> JSONResponse:
        # Starlette raises the exception on after this answer, so the server logs it.
        return error_response(ServiceError("The CRM failed. Its log says why."))


def _invalid_request(error: RequestValidationError) -> InvalidRequest:
    # The refused input itself is left out: it may be large, and need not be encodable.
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
