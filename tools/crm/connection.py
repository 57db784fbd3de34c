"""HTTP requests to the CRM: time limits, retries where they are safe, and typed errors."""

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Literal, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt
from tenacity.wait import wait_base, wait_exponential_jitter

from core import deadline
from core.circuit import CircuitBreaker
from core.deadline import StopAtDeadline
from core.effects import Effects, Outcome, UnrecordedEffects
from core.errors import CrmError, CrmRefused, CrmUnauthorized, CrmUnavailable
from core.settings import CrmSettings

T = TypeVar("T", bound=BaseModel)

# Retried, like every 5xx.
_TRANSIENT = frozenset({408, 425, 429})
_MAX_PAUSE_SECONDS = 5.0
# Failed calls in a row, each with all its attempts, after which the CRM is not called for a while.
_MAX_FAILURES = 3
# A CRM that was given less time than this, because a deadline was near, has not failed.
_FAIR_SECONDS = 2.0


class CrmConnection:
    """A connection to one CRM.

    A GET is retried on 429, on 5xx and when there was no response. So is a write, because each carries an
    ``Idempotency-Key`` under which the CRM executes it once
    (IETF draft-ietf-httpapi-idempotency-key-header).

    Every method raises :class:`CrmRefused` on a 4xx, :class:`CrmUnauthorized` on 401 and 403,
    :class:`CrmUnavailable` when all attempts failed, no time is left, or the circuit is open, and
    :class:`CrmError` on a response it cannot read.

    Args:
        http: Client with base address and key set; the caller closes it.
        settings: Attempts, and the time limit of one request.
        first_pause: Seconds before the second attempt; later pauses grow, with jitter.
        effects: Records every write before and after it; ``None`` records nothing.

    Attributes:
        circuit: Refuses calls for a while after several in a row have failed.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        settings: CrmSettings,
        *,
        first_pause: float,
        effects: Effects | None = None,
    ) -> None:
        self._http = http
        self._effects = effects or UnrecordedEffects()
        self._attempts = settings.max_attempts
        self._timeout = settings.timeout_seconds
        self._wait = _RetryAfter(
            wait_exponential_jitter(first_pause, max=_MAX_PAUSE_SECONDS, jitter=first_pause)
        )
        self.circuit = CircuitBreaker(
            "crm",
            settings.rest_seconds,
            is_failure=self._is_outage,
            refuse=_refuse_call,
            max_failures=_MAX_FAILURES,
        )

    async def get(self, path: str, answer: type[T], *, params: Mapping[str, str] | None = None) -> T:
        """Return what is at a path, as the model ``answer``."""
        return await self._request("GET", path, answer, params=params)

    async def write(
        self,
        action: str,
        method: Literal["POST", "PATCH"],
        path: str,
        body: Mapping[str, Any],
        answer: type[T],
        *,
        key: str,
        timeout: float | None = None,
        is_essential: bool = False,
    ) -> T:
        """Create or change something, once per key; ``timeout`` (seconds) overrides the usual one.

        Every effect of every graph passes through here, so effects are recorded here. An essential one is
        tried once while the circuit is open too.

        Raises:
            EffectConflict: The key was used for another effect.
            DatabaseUnavailable: The effect cannot be recorded.
        """
        headers = {"Idempotency-Key": key}

        async def send() -> Outcome:
            created = await self._request(
                method, path, answer, timeout=timeout, is_essential=is_essential, json=body, headers=headers
            )
            return created.model_dump(mode="json")

        outcome = await self._effects.run_once(key, action, {"path": path, **body}, send)
        return answer.model_validate(outcome)

    async def _request(
        self,
        method: str,
        path: str,
        answer: type[T],
        *,
        timeout: float | None = None,
        is_essential: bool = False,
        **request: Any,
    ) -> T:
        request["timeout"] = timeout or self._timeout
        with self.circuit.call(is_essential=is_essential) as is_trial:
            attempts = AsyncRetrying(
                stop=stop_after_attempt(1 if is_trial else self._attempts) | StopAtDeadline(),
                wait=self._wait,
                retry=retry_if_exception_type(CrmUnavailable),
                reraise=True,
            )
            return await attempts(self._attempt, method, path, answer, request)

    def _is_outage(self, error: Exception) -> bool:
        if not isinstance(error, CrmUnavailable):
            return False
        status = error.details.get("crm_status", HTTPStatus.INTERNAL_SERVER_ERROR)
        seconds = error.details.get("timeout_seconds", self._timeout)
        return bool(
            status >= HTTPStatus.INTERNAL_SERVER_ERROR and seconds >= min(self._timeout, _FAIR_SECONDS)
        )

    async def _attempt(self, method: str, path: str, answer: type[T], request: Mapping[str, Any]) -> T:
        response = await self._send(method, path, request)
        _raise_for_status(response, method, path)
        try:
            return answer.model_validate_json(response.content)
        except ValidationError as error:
            raise CrmError(
                f"the CRM's answer to {method} {path} does not match its contract",
                details={"faults": error.error_count()},
            ) from error

    async def _send(self, method: str, path: str, request: Mapping[str, Any]) -> httpx.Response:
        seconds = deadline.limit(request["timeout"])
        if not seconds:
            raise CrmUnavailable(f"no time is left for {method} {path}", details={"timeout_seconds": 0.0})
        try:
            # httpx's timeout limits each read: a response that trickles in would never end.
            async with asyncio.timeout(seconds):
                return await self._http.request(method, f"/api/v1{path}", **request)
        except (TimeoutError, httpx.TimeoutException) as error:
            raise CrmUnavailable(
                f"the CRM did not answer {method} {path} in time", details={"timeout_seconds": seconds}
            ) from error
        except httpx.TransportError as error:
            raise CrmUnavailable(f"the CRM cannot be reached ({type(error).__name__})") from error
        except httpx.DecodingError as error:
            raise CrmError(f"the CRM's answer to {method} {path} cannot be decoded") from error
        except (httpx.InvalidURL, UnicodeEncodeError) as error:
            raise CrmRefused(
                f"the request to the CRM is not valid: {error}", crm_status=HTTPStatus.BAD_REQUEST
            ) from error


class _RetryAfter(wait_base):
    """Waits as long as the CRM's Retry-After says, or else the usual pause.

    Without a deadline, which ends the attempts where they would wait beyond it, there is a bound.
    """

    def __init__(self, usual: wait_base) -> None:
        self._usual = usual

    def __call__(self, retry_state: RetryCallState) -> float:
        error = retry_state.outcome.exception() if retry_state.outcome else None
        retry_after = error.retry_after if isinstance(error, CrmUnavailable) else None
        usual = self._usual(retry_state)
        if retry_after is None:
            return usual
        is_bounded = deadline.remaining() is not None
        return max(usual, retry_after if is_bounded else min(retry_after, _MAX_PAUSE_SECONDS))


def _refuse_call(seconds: float) -> CrmUnavailable:
    return CrmUnavailable(
        "the CRM is unavailable and is not called for the moment",
        details={"circuit": "open"},
        retry_after=seconds,
    )


def quote_segment(kind: str, identifier: str) -> str:
    """Return an id quoted as one segment of a path.

    Raises:
        CrmRefused: Nothing can have this id.
    """
    if identifier in {"", ".", ".."}:
        # These cannot be quoted: the path would name something else.
        raise CrmRefused(f"there is no {kind} {identifier!r}", crm_status=HTTPStatus.NOT_FOUND)
    return quote(identifier, safe="", errors="replace")


def _raise_for_status(response: httpx.Response, method: str, path: str) -> None:
    status = response.status_code
    if response.is_success:
        return
    if status in _TRANSIENT or response.is_server_error:
        raise CrmUnavailable(
            f"the CRM answered {status} to {method} {path}",
            details={"crm_status": status},
            retry_after=_retry_after(response),
        )
    if status in {401, 403}:
        raise CrmUnauthorized(
            f"the CRM answered {status}: it does not accept CRM_API_KEY", details={"crm_status": status}
        )
    if not response.is_client_error:
        raise CrmError(
            f"the CRM answered {status} to {method} {path}: is CRM_API_BASE its address?",
            details={"crm_status": status},
        )
    raise CrmRefused(_error_message(response), crm_status=status)


def _retry_after(response: httpx.Response) -> float | None:
    value = response.headers.get("retry-after", "")
    return float(value) if value.isdecimal() else None


def _error_message(response: httpx.Response) -> str:
    """Return the CRM's own message, or a generic one."""
    try:
        body = response.json()
    except ValueError:
        body = None
    message = body.get("message") if isinstance(body, dict) else None
    return str(message) if message else f"the CRM answered {response.status_code}"
