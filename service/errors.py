"""Every failure as ``{error, message, details}`` with its status, in a response and inside a stream alike."""

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from langgraph.errors import GraphDrained, GraphRecursionError, NodeTimeoutError, is_invalid_resume
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from core import postgres
from core.errors import (
    DatabaseUnavailable,
    InvalidRequest,
    RunLimitReached,
    RunReplaced,
    RunStopped,
    RunTimedOut,
    ServiceError,
)
from core.logging import get_logger

log = get_logger(__name__)

REPLACED = "replaced"
_HTTP_CODES = {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 413: "too_large"}


def describe(error: BaseException) -> ServiceError:  # noqa: PLR0911 - a row a kind
    """The typed error for anything a run can end with; what is not foreseen is logged and not disclosed."""
    match error:
        case ServiceError():
            return error
        case GraphDrained(reason=reason) if reason == REPLACED:
            return RunReplaced("a newer run took this thread over; its checkpoint is kept")
        case GraphDrained():
            return RunStopped(
                "the run was stopped at a step boundary and its checkpoint is kept; go on with it as "
                "details.resume says, or ask again where there is none",
                retry_after=5,
            )
        case ValidationError() if is_invalid_resume(error):
            # LangGraph checks an answer before anything runs; the question stays open.
            return invalid(error.errors(include_url=False, include_context=False))
        case NodeTimeoutError() | TimeoutError():
            return RunTimedOut("the run took longer than it may; what it had done is kept")
        case GraphRecursionError():
            return RunLimitReached("the graph took more steps than it may; what it had done is kept")
        case _ if isinstance(error, postgres.DATABASE_UNAVAILABLE):
            log.warning("database_unavailable", reason=str(error))
            return DatabaseUnavailable(
                "the database does not answer; nothing was lost, try again", retry_after=2
            )
        case _:
            log.error("unforeseen_error", exc_info=error)
            return ServiceError(
                "something failed on our side; it is logged under this response's X-Request-Id"
            )


def body(error: ServiceError) -> dict[str, Any]:
    """The error as clients read it."""
    return {"error": error.code, "message": error.message, "details": error.details}


def response(error: ServiceError) -> JSONResponse:
    """The error as a response, with ``Retry-After`` where a retry makes sense."""
    headers = {"Retry-After": str(max(1, round(error.retry_after)))} if error.retry_after else None
    return JSONResponse(body(error), status_code=error.status, headers=headers)


def invalid(faults: Sequence[Any]) -> InvalidRequest:
    """What a validation found, one line for the reader and a list for the program."""
    found = [
        {"field": ".".join(map(str, fault["loc"])), "problem": fault["msg"].removeprefix("Value error, ")}
        if isinstance(fault, dict)
        else {"field": "body", "problem": str(fault)}
        for fault in faults
    ]
    message = "; ".join(f"{fault['field']}: {fault['problem']}" for fault in found)
    return InvalidRequest(message, details={"faults": found})


def install(app: FastAPI) -> None:
    """Give the app its handlers."""

    @app.exception_handler(ServiceError)
    async def service_error(_: Request, error: ServiceError) -> JSONResponse:
        return response(error)

    @app.exception_handler(RequestValidationError)
    async def validation_error(_: Request, error: RequestValidationError) -> JSONResponse:
        return response(invalid(error.errors()))

    @app.exception_handler(HTTPException)
    async def http_error(_: Request, error: HTTPException) -> JSONResponse:
        content = {
            "error": _HTTP_CODES.get(error.status_code, "http_error"),
            "message": str(error.detail),
            "details": {},
        }
        return JSONResponse(content, status_code=error.status_code, headers=error.headers)

    # The last resort: what fails in a middleware. What a route raises, api.typed_errors answers.
    @app.exception_handler(Exception)
    async def unforeseen(_: Request, error: Exception) -> JSONResponse:
        return response(describe(error))
