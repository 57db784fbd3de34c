"""``api_call``: ask an HTTP API that the settings allow."""

import re
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import AfterValidator, Field, StringConstraints

from workflows.definition.base import StepBase
from workflows.fields import Holds, TemplateJson, TemplateMap, TemplateText
from workflows.templates import Template

CRM_SCHEME: Final = "crm:/"
# Between two attempts, also where the other side asks for more.
LONGEST_PAUSE_SECONDS: Final = 30.0
# The server is a part of the definition and never of the data.
_ADDRESS: Final = re.compile(r"(https?://[^/?#@\s\\{}]+/|crm:/)", re.IGNORECASE)
# fmt: off
_RESERVED: Final = frozenset({
    "host", "content-length", "content-type", "transfer-encoding", "connection", "upgrade", "te", "trailer",
    "expect", "idempotency-key", "accept-encoding", "proxy-authorization", "cookie",
})
# fmt: on
_SECRET: Final = frozenset({"authorization", "x-api-key"})


def _address(text: str) -> str:
    start = Template(text).literal_start()
    if not _ADDRESS.match(start if start != text else f"{text}/"):
        raise ValueError("must begin with https://host/ or crm:/, without placeholders, user or password")
    return text


def _headers(headers: dict[str, str]) -> dict[str, str]:
    for name in headers:
        if name.lower() in _RESERVED:
            raise ValueError(f"{name}: is set by the service")
        if name.lower() in _SECRET:
            raise ValueError(f"{name}: put the key in WORKFLOW_SECRETS and name it in secret_headers")
    return headers


def _secret_headers(headers: dict[str, str]) -> dict[str, str]:
    for name in headers:
        if name.lower() in _RESERVED:
            raise ValueError(f"{name}: is set by the service")
    return headers


# A token of RFC 9110.
HeaderName: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$")]
SecretName: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Status: TypeAlias = Annotated[int, Field(ge=200, le=599)]


class ApiCall(StepBase):
    """Ask an HTTP API; output: ``{status, headers, body}``.

    It always carries an ``Idempotency-Key``, the same however often the step is tried, also after a restart.
    """

    type: Literal["api_call"]
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    url: Annotated[
        TemplateText, StringConstraints(min_length=6, max_length=2_000), AfterValidator(_address)
    ] = Field(
        description="https://host/path, its host one of WORKFLOW_ALLOWED_HOSTS, or crm:/path for the CRM; "
        "each placeholder is one segment of the path or one value of the query"
    )
    headers: Annotated[
        dict[HeaderName, TemplateText], Field(max_length=30), AfterValidator(_headers), Holds("template")
    ] = Field({})
    secret_headers: Annotated[
        dict[HeaderName, SecretName], Field(max_length=10), AfterValidator(_secret_headers)
    ] = Field({}, description="Header -> name of the secret in WORKFLOW_SECRETS that is its whole value")
    query: TemplateMap = Field({})
    body: TemplateJson = Field(None, description="Sent as JSON; null: no body")
    expected_status: list[Status] = Field([], max_length=20, description="None: any from 200 to 299")
    attempts: int = Field(3, ge=1, le=10, description="On 429, 5xx and no answer")
    backoff_seconds: float = Field(0.5, ge=0, le=60, description="Before the second attempt; then it doubles")
    response_limit_bytes: int = Field(1_000_000, ge=1, le=10_000_000)

    @property
    def bound_seconds(self) -> float:
        """Enough for all its attempts, each of which has its own timeout, and the pauses between them."""
        return self.attempts * self.timeout_seconds + (self.attempts - 1) * LONGEST_PAUSE_SECONDS
