"""How the CRM is asked: within time limits, and again only where that is safe."""

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Literal, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt
from tenacity.wait import wait_base, wait_exponential_jitter

from core.effects import Effects, Outcome, UnrecordedEffects
from core.errors import CrmError, CrmRefused, CrmUnauthorized, CrmUnavailable
from core.settings import CrmSettings

T = TypeVar("T", bound=BaseModel)

# And every 5xx.
_TRANSIENT = frozenset({408, 425, 429})
_LONGEST_PAUSE_SECONDS = 5.0


class CrmConnection:
    """Asks one CRM.

    A GET is repeated on 429, 5xx and when nothing was heard. So is a write, because each carries an
    ``Idempotency-Key`` under which the CRM does the thing once
    (IETF draft-ietf-httpapi-idempotency-key-header).

    Every method raises :class:`CrmRefused` on a 4xx, :class:`CrmUnauthorized` on 401 and 403,
    :class:`CrmUnavailable` when all attempts failed, and :class:`CrmError` on an answer it cannot read.

    Args:
        http: Client with base address and key set; not owned.
        settings: Attempts, and the time limit of one request.
        first_pause: Seconds before the second attempt; later pauses grow, with jitter.
        effects: Where every write is recorded before and after; ``None``: nowhere.
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
            wait_exponential_jitter(first_pause, max=_LONGEST_PAUSE_SECONDS, jitter=first_pause)
        )

    async def get(self, path: str, answer: type[T], *, params: Mapping[str, str] | None = None) -> T:
        """What is at a path."""
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
    ) -> T:
        """Make or change something, once per key; ``timeout`` in seconds stands for the usual one.

        All effects of all graphs pass here, and so their records are made here.

        Raises:
            EffectConflict: The key was used for something else.
            DatabaseUnavailable: The effect cannot be recorded.
        """
        headers = {"Idempotency-Key": key}

        async def do() -> Outcome:
            made = await self._request(method, path, answer, timeout=timeout, json=body, headers=headers)
            return made.model_dump(mode="json")

        outcome = await self._effects.run_once(key, action, {"path": path, **body}, do)
        return answer.model_validate(outcome)

    async def _request(
        self, method: str, path: str, answer: type[T], *, timeout: float | None = None, **request: Any
    ) -> T:
        attempts = AsyncRetrying(
            stop=stop_after_attempt(self._attempts),
            wait=self._wait,
            retry=retry_if_exception_type(CrmUnavailable),
            reraise=True,
        )
        request["timeout"] = timeout or self._timeout
        return await attempts(self._attempt, method, path, answer, request)

    async def _attempt(self, method: str, path: str, answer: type[T], request: Mapping[str, Any]) -> T:
        response = await self._heard(method, path, request)
        _raise_for_status(response, method, path)
        try:
            return answer.model_validate_json(response.content)
        except ValidationError as error:
            raise CrmError(
                f"the CRM's answer to {method} {path} is not what its contract says",
                details={"faults": error.error_count()},
            ) from error

    async def _heard(self, method: str, path: str, request: Mapping[str, Any]) -> httpx.Response:
        try:
            # httpx limits each read: an answer that trickles in would never end.
            async with asyncio.timeout(request["timeout"]):
                return await self._http.request(method, f"/api/v1{path}", **request)
        except (TimeoutError, httpx.TimeoutException) as error:
            raise CrmUnavailable(f"the CRM did not answer {method} {path} in time") from error
        except httpx.TransportError as error:
            raise CrmUnavailable(f"the CRM cannot be reached ({type(error).__name__})") from error
        except httpx.DecodingError as error:
            raise CrmError(f"the CRM's answer to {method} {path} cannot be decoded") from error
        except (httpx.InvalidURL, UnicodeEncodeError) as error:
            raise CrmRefused(
                f"this cannot be asked of the CRM: {error}", crm_status=HTTPStatus.BAD_REQUEST
            ) from error


class _RetryAfter(wait_base):
    """The pause the CRM asked for, where it did, but no longer than the longest; else the usual one."""

    def __init__(self, usual: wait_base) -> None:
        self._usual = usual

    def __call__(self, retry_state: RetryCallState) -> float:
        error = retry_state.outcome.exception() if retry_state.outcome else None
        asked = error.retry_after if isinstance(error, CrmUnavailable) else None
        usual = self._usual(retry_state)
        return usual if asked is None else max(usual, min(asked, _LONGEST_PAUSE_SECONDS))


def segment(kind: str, identifier: str) -> str:
    """An id as a segment of a path.

    Raises:
        CrmRefused: Nothing of this kind can have the id.
    """
    if identifier in {"", ".", ".."}:
        # They cannot be quoted: the path would name something else.
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
    raise CrmRefused(_message(response), crm_status=status)


def _retry_after(response: httpx.Response) -> float | None:
    value = response.headers.get("retry-after", "")
    return float(value) if value.isdecimal() else None


def _message(response: httpx.Response) -> str:
    """The CRM's own words, where it gave any."""
    try:
        body = response.json()
    except ValueError:
        body = None
    said = body.get("message") if isinstance(body, dict) else None
    return str(said) if said else f"the CRM answered {response.status_code}"
