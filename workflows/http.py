"""How ``api_call`` reaches the outside: allowed hosts with the secrets kept for them, and the CRM."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx
from pydantic import JsonValue
from pydantic_core import from_json

from core.errors import OutgoingRefused, OutgoingUnavailable, StepFailed
from core.outgoing import GuardedTransport
from core.settings import WorkflowSettings
from core.texts import make_storable
from workflows.numbers import LARGEST
from workflows.ports import IncomingAnswer, OutgoingCall
from workflows.steps.api_call import CRM_SCHEME

# Of an answer's headers, what a workflow may go on with.
KEPT_HEADERS: Final = frozenset({"content-type", "etag", "last-modified", "link", "location", "retry-after"})
_CRM_PREFIX: Final = "/api/v1/"
_HIDDEN: Final = "[secret]"
# What is shorter is found in every text.
_LEAST_HIDDEN: Final = 4


class WorkflowHttp:
    """The :class:`workflows.ports.HttpCaller` of the service.

    Args:
        http: Client over ``guard``.
        guard: Knows the allowed hosts.
        crm: The CRM's client, with its address and key.
        secrets: Values of headers by ``host/name``: a secret is sent to its host and to no other.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        guard: GuardedTransport,
        crm: httpx.AsyncClient,
        secrets: Mapping[str, str],
    ) -> None:
        self._http = http
        self._guard = guard
        self._crm = crm
        self._secrets = secrets

    async def call(self, request: OutgoingCall) -> IncomingAnswer:
        """Ask once (:class:`workflows.ports.HttpCaller`)."""
        where = request.url.partition("?")[0]
        try:
            # httpx limits each read: an answer that trickles in would never end.
            async with asyncio.timeout(request.timeout):
                return await self._ask(request)
        except (TimeoutError, httpx.TimeoutException) as error:
            raise StepFailed(f"{where} did not answer in {request.timeout:g} s", retryable=True) from error
        except (httpx.TransportError, OutgoingUnavailable) as error:
            raise StepFailed(f"{where} cannot be reached ({type(error).__name__})", retryable=True) from error
        except OutgoingRefused as error:
            raise StepFailed(f"{error.message} (WORKFLOW_ALLOWED_HOSTS)") from error
        except (httpx.InvalidURL, UnicodeEncodeError, ValueError) as error:
            raise StepFailed(f"{where} cannot be asked: {type(error).__name__}") from error

    async def _ask(self, request: OutgoingCall) -> IncomingAnswer:
        client, url, secret_headers = self._addressed(request)
        headers = {
            **request.headers,
            **secret_headers,
            # What is compressed could become any size when it is read.
            "Accept-Encoding": "identity",
            **({"Idempotency-Key": request.idempotency_key} if request.idempotency_key else {}),
        }
        content: dict[str, Any] = {} if request.body is None else {"json": request.body}
        async with client.stream(
            request.method,
            url,
            headers=headers,
            params=dict(request.query) or None,
            follow_redirects=False,
            timeout=request.timeout,
            **content,
        ) as response:
            body = await _read(response, request.most_bytes)
        return _answer(response, body, hidden=list(secret_headers.values()))

    def _addressed(self, request: OutgoingCall) -> tuple[httpx.AsyncClient, str, dict[str, str]]:
        if request.url.lower().startswith(CRM_SCHEME):
            if request.secret_headers:
                raise StepFailed("crm: needs no secret_headers; the CRM's key is sent with it")
            path = request.url[len(CRM_SCHEME) :].lstrip("/")
            if {".", ".."} & set(path.partition("?")[0].split("/")):
                raise StepFailed("crm: the path must not hold . or .. segments")
            return self._crm, _CRM_PREFIX + path, {}
        host = self._guard.find_host(httpx.URL(request.url)).name
        return self._http, request.url, self._values(host, request.secret_headers)

    def _values(self, host: str, names: Mapping[str, str]) -> dict[str, str]:
        missing = sorted(f"{host}/{name}" for name in names.values() if f"{host}/{name}" not in self._secrets)
        if missing:
            raise StepFailed(f"WORKFLOW_SECRETS has no {', '.join(missing)}")
        return {header: self._secrets[f"{host}/{name}"] for header, name in names.items()}


@asynccontextmanager
async def open_http(settings: WorkflowSettings, crm: httpx.AsyncClient) -> AsyncIterator[WorkflowHttp]:
    """Open it; connections close with the context."""
    guard = GuardedTransport(settings.hosts)
    async with httpx.AsyncClient(transport=guard, trust_env=False) as http:
        yield WorkflowHttp(http, guard, crm, settings.secret_values)


async def _read(response: httpx.Response, most: int) -> bytes:
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise StepFailed(f"{response.request.url.host} compressed its answer though it was asked not to")
    parts, size = [], 0
    async for part in response.aiter_raw():
        parts.append(part)
        size += len(part)
        if size > most:
            raise StepFailed(f"the answer has more than {most:,} bytes (response_limit_bytes)")
    return b"".join(parts)


def _answer(response: httpx.Response, body: bytes, hidden: list[str]) -> IncomingAnswer:
    kept = {name: _hiding(value, hidden) for name, value in response.headers.items() if name in KEPT_HEADERS}
    asked = response.headers.get("retry-after", "")
    return IncomingAnswer(
        status=response.status_code,
        headers=kept,
        body=_parsed(body, response, hidden),
        retry_after=float(asked) if asked.isdecimal() else None,
    )


def _parsed(body: bytes, response: httpx.Response, hidden: list[str]) -> JsonValue:
    text = _hiding(_decoded(body, response.charset_encoding or "utf-8"), hidden)
    if "json" not in response.headers.get("content-type", ""):
        return text or None
    try:
        parsed: JsonValue = from_json(text, allow_inf_nan=False) if text else None
    except ValueError as error:
        raise StepFailed(f"the answer says it is JSON and is not: {str(error)[:200]}") from error
    return _storable(parsed)


def _decoded(body: bytes, encoding: str) -> str:
    try:
        return body.decode(encoding, "replace")
    except LookupError:
        # The other side made the name up.
        return body.decode("utf-8", "replace")


def _storable(value: JsonValue) -> JsonValue:
    """As a checkpoint holds it: texts for ``jsonb``, and numbers of 64 bits, larger ones as texts."""
    if isinstance(value, int) and abs(value) >= LARGEST:
        return str(value)
    if isinstance(value, str):
        return make_storable(value)
    if isinstance(value, list):
        return [_storable(one) for one in value]
    if isinstance(value, dict):
        return {make_storable(key): _storable(one) for key, one in value.items()}
    return value


def _hiding(text: str, hidden: list[str]) -> str:
    """The text without the secrets that were sent: some servers answer with what they were asked."""
    for secret in hidden:
        # With and without its scheme, as in "Bearer abc".
        for part in (secret, secret.rpartition(" ")[2]):
            text = text.replace(part, _HIDDEN) if len(part) >= _LEAST_HIDDEN else text
    return make_storable(text)
