"""Map every failure to ``{error, message, details}`` and a status, in responses and in streams."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from langgraph.errors import GraphDrained, GraphRecursionError, NodeTimeoutError
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

# The drain reason of a run that a newer one replaces.
REPLACED = "replaced"
# Of an unknown path, so many characters are repeated.
_SHOWN_PATH = 200
_HTTP_CODES = {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 413: "too_large"}


def to_service_error(error: BaseException) -> ServiceError:  # noqa: PLR0911 - one return for each kind
    """Return the typed error for whatever a run may raise; an unforeseen one is logged and not disclosed."""
    match error:
        case ServiceError():
            return error
        case GraphDrained(reason=reason) if reason == REPLACED:
            return RunReplaced("a newer run replaced this one on its thread; its checkpoint is kept")
        case GraphDrained():
            return RunStopped(
                "the run was stopped at a step boundary and its checkpoint is kept; send details.resume for "
                "its answer, or the request again if there is none",
                retry_after=5,
            )
        case NodeTimeoutError() | TimeoutError():
            return RunTimedOut("the run exceeded its time limit; its finished steps are kept")
        case GraphRecursionError():
            return RunLimitReached(
                "the graph took as many steps as a run may and has not come to its end; its finished steps "
                "are kept: ask for less on a new thread, or go on from there with the input {'resume': null}"
            )
        case _ if isinstance(error, postgres.DATABASE_UNAVAILABLE):
            log.warning("database_unavailable", reason=str(error))
            return DatabaseUnavailable(postgres.describe_outage(error), retry_after=2)
        case _:
            log.error("unforeseen_error", exc_info=error)
            return ServiceError(
                "something failed on our side; it is logged under this response's X-Request-Id"
            )


def error_body(error: ServiceError) -> dict[str, Any]:
    """Return the error as clients read it."""
    return {"error": error.code, "message": error.message, "details": error.details}


def error_response(error: ServiceError) -> JSONResponse:
    """Return the error as a response, with ``Retry-After`` where a retry makes sense."""
    headers = {"Retry-After": str(max(1, round(error.retry_after)))} if error.retry_after else None
    return JSONResponse(error_body(error), status_code=error.status, headers=headers)


def invalid_request(errors: Sequence[Any], *, whole: str = "input") -> InvalidRequest:
    """Return the typed error for the errors of a validation: a line to read and a list for programs.

    Args:
        errors: As pydantic lists them.
        whole: What the validated value is called where the fault is none of a field.
    """
    faults = [_describe_fault(fault, whole) for fault in errors]
    message = "; ".join(f"{fault['field']}: {fault['problem']}" for fault in faults)
    return InvalidRequest(message, details={"faults": faults})


def _describe_http_error(request: Request, error: HTTPException) -> str:
    path = request.url.path[:_SHOWN_PATH]
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = (error.headers or {}).get("Allow", "another method")
        return f"{path!r} does not take {request.method}, but {allowed}"
    if error.status_code == HTTPStatus.NOT_FOUND and error.detail == HTTPStatus.NOT_FOUND.phrase:
        return f"there is nothing at {path!r}; /docs lists all routes"
    return str(error.detail)


def _describe_fault(fault: Any, whole: str) -> dict[str, str]:
    if not isinstance(fault, dict):
        return {"field": "body", "problem": str(fault)}
    field = ".".join(map(str, fault["loc"])) or whole
    match fault["type"]:
        case "json_invalid":
            # The location is the number of a character.
            place = f"at character {fault['loc'][-1]}: {fault.get('ctx', {}).get('error', 'cannot be read')}"
            return {"field": "body", "problem": f"it is not valid JSON, {place}"}
        case "model_attributes_type" | "model_type" | "dict_type":
            sent_as = ", sent with Content-Type: application/json" if field == "body" else ""
            return {"field": field, "problem": f"it must be a JSON object{sent_as}"}
        case _:
            return {"field": field, "problem": fault["msg"].removeprefix("Value error, ")}


def install_error_handlers(app: FastAPI) -> None:
    """Register the application's exception handlers."""

    @app.exception_handler(ServiceError)
    async def handle_service_error(_: Request, error: ServiceError) -> JSONResponse:
        return error_response(error)

    @app.exception_handler(RequestValidationError)
    async def handle_validation_error(_: Request, error: RequestValidationError) -> JSONResponse:
        return error_response(invalid_request(error.errors()))

    @app.exception_handler(HTTPException)
    async def handle_http_error(request: Request, error: HTTPException) -> JSONResponse:
        content = {
            "error": _HTTP_CODES.get(error.status_code, "http_error"),
            "message": _describe_http_error(request, error),
            "details": {},
        }
        return JSONResponse(content, status_code=error.status_code, headers=error.headers)

    # The last resort, for failures of a middleware; TypedErrors answers what a route raises.
    @app.exception_handler(Exception)
    async def handle_unforeseen_error(_: Request, error: Exception) -> JSONResponse:
        return error_response(to_service_error(error))
