"""HTTP requests of ``api_call`` steps: to allowed hosts with the secrets stored for them, and to the CRM."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import unquote

import httpx
from pydantic import JsonValue
from pydantic_core import from_json

from core.errors import OutgoingRefused, OutgoingUnavailable, StepFailed
from core.outgoing import GuardedTransport
from core.settings import CrmRequest, WorkflowSettings
from core.texts import make_storable
from workflows.json_values import to_json
from workflows.ports import HttpRequest, HttpResponse
from workflows.steps import CRM_SCHEME

# The response headers that a workflow may read.
HEADERS: Final = frozenset({"content-type", "etag", "last-modified", "link", "location", "retry-after"})
_CRM_PREFIX: Final = "/api/v1/"
_REDACTED: Final = "[secret]"
# A shorter text would be found in almost any response.
_MIN_SECRET_LENGTH: Final = 4


class WorkflowHttpClient:
    """The service's :class:`workflows.ports.HttpCaller`.

    Args:
        http: A client that uses ``guard`` as its transport.
        guard: Knows the allowed hosts.
        crm: The CRM's client, with its address and key.
        secrets: Header values by ``host/name``; a secret is sent to its own host only.
        crm_requests: What may be sent to the CRM.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        guard: GuardedTransport,
        crm: httpx.AsyncClient,
        secrets: Mapping[str, str],
        crm_requests: Sequence[CrmRequest],
    ) -> None:
        self._http = http
        self._guard = guard
        self._crm = crm
        self._secrets = secrets
        self._crm_requests = crm_requests

    async def send(self, request: HttpRequest) -> HttpResponse:
        """Send a request once (:class:`workflows.ports.HttpCaller`)."""
        address = request.url.partition("?")[0]
        try:
            # httpx limits each read only: a response that arrives byte by byte would never time out.
            async with asyncio.timeout(request.timeout):
                return await self._send(request)
        except (TimeoutError, httpx.TimeoutException) as error:
            raise StepFailed(f"{address} did not answer in {request.timeout:g} s", retryable=True) from error
        except (httpx.TransportError, OutgoingUnavailable) as error:
            reason = type(error).__name__
            raise StepFailed(f"{address} cannot be reached ({reason})", retryable=True) from error
        except OutgoingRefused as error:
            raise StepFailed(f"{error.message} (WORKFLOW_ALLOWED_HOSTS)") from error
        except (httpx.InvalidURL, UnicodeEncodeError, ValueError) as error:
            raise StepFailed(f"the request to {address} cannot be sent: {type(error).__name__}") from error

    async def _send(self, request: HttpRequest) -> HttpResponse:
        client, url, secret_headers = self._resolve(request)
        headers = {
            **request.headers,
            **secret_headers,
            # A compressed response could grow to any size when it is decompressed.
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
            body = await _read_body(response, request.max_bytes)
        return _build_response(response, body, secrets=list(secret_headers.values()))

    def _resolve(self, request: HttpRequest) -> tuple[httpx.AsyncClient, str, dict[str, str]]:
        """Return the client, the URL and the secret headers to send a request with."""
        if request.url.lower().startswith(CRM_SCHEME):
            if request.secret_headers:
                raise StepFailed("crm: takes no secret_headers; the CRM's key is sent with every request")
            path = request.url[len(CRM_SCHEME) :].lstrip("/")
            self._check_crm_request(request.method, path)
            return self._crm, _CRM_PREFIX + path, {}
        host = self._guard.find_host(httpx.URL(request.url)).name
        return self._http, request.url, self._resolve_secrets(host, request.secret_headers)

    def _check_crm_request(self, method: str, path: str) -> None:
        """Raise unless the operator allows the request, which carries the CRM's key past all approvals.

        The path is judged as the CRM's router reads it, decoded.
        """
        decoded = unquote(path.partition("?")[0].partition("#")[0])
        if {".", ".."} & set(decoded.split("/")):
            raise StepFailed("crm: the path must not hold . or .. segments")
        if not any(allowed.matches(method, decoded) for allowed in self._crm_requests):
            raise StepFailed(
                f"{method} crm:/{decoded} is not among the requests that workflows may send to the CRM "
                "(WORKFLOW_CRM_REQUESTS)"
            )

    def _resolve_secrets(self, host: str, names: Mapping[str, str]) -> dict[str, str]:
        missing = sorted(f"{host}/{name}" for name in names.values() if f"{host}/{name}" not in self._secrets)
        if missing:
            raise StepFailed(f"WORKFLOW_SECRETS has no {', '.join(missing)}")
        return {header: self._secrets[f"{host}/{name}"] for header, name in names.items()}


@asynccontextmanager
async def open_http(settings: WorkflowSettings, crm: httpx.AsyncClient) -> AsyncIterator[WorkflowHttpClient]:
    """Open a client whose connections close with the context."""
    guard = GuardedTransport(settings.hosts)
    async with httpx.AsyncClient(transport=guard, trust_env=False) as http:
        yield WorkflowHttpClient(http, guard, crm, settings.secret_values, settings.allowed_crm_requests)


async def _read_body(response: httpx.Response, max_bytes: int) -> bytes:
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise StepFailed(f"{response.request.url.host} compressed its response though it was asked not to")
    chunks, size = [], 0
    async for chunk in response.aiter_raw():
        chunks.append(chunk)
        size += len(chunk)
        if size > max_bytes:
            raise StepFailed(f"the response has more than {max_bytes:,} bytes (response_limit_bytes)")
    return b"".join(chunks)


def _build_response(response: httpx.Response, body: bytes, secrets: Sequence[str]) -> HttpResponse:
    headers = {name: _redact(value, secrets) for name, value in response.headers.items() if name in HEADERS}
    retry_after = response.headers.get("retry-after", "")
    return HttpResponse(
        status=response.status_code,
        headers=headers,
        body=_parse_body(body, response, secrets),
        retry_after=float(retry_after) if retry_after.isdecimal() else None,
    )


def _parse_body(body: bytes, response: httpx.Response, secrets: Sequence[str]) -> JsonValue:
    text = _redact(_decode(body, response.charset_encoding or "utf-8"), secrets)
    if "json" not in response.headers.get("content-type", ""):
        return text or None
    try:
        parsed: JsonValue = from_json(text, allow_inf_nan=False) if text else None
    except ValueError as error:
        raise StepFailed(f"the response claims to be JSON and is not: {str(error)[:200]}") from error
    return to_json(parsed)


def _decode(body: bytes, encoding: str) -> str:
    try:
        return body.decode(encoding, "replace")
    except LookupError:
        # The server named an encoding that does not exist.
        return body.decode("utf-8", "replace")


def _redact(text: str, secrets: Sequence[str]) -> str:
    """Remove the secrets that were sent: some servers echo the request in their response."""
    for secret in secrets:
        # With and without its scheme, as in "Bearer abc".
        for part in (secret, secret.rpartition(" ")[2]):
            text = text.replace(part, _REDACTED) if len(part) >= _MIN_SECRET_LENGTH else text
    return make_storable(text)
