"""Runs, sessions and workflows, the CRM they call, and what waits for a person's approval."""

import re
from dataclasses import dataclass
from typing import Annotated, Final, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings

from core.settings.base import ApiKey, Seconds, check_http_address, group_config, parse_text_map

_HOST: Final = re.compile(r"(?P<host>\[[0-9a-f:.]+\]|[a-z0-9._-]{1,253})(?::(?P<port>[0-9]{1,5}))?")
_CRM_REQUEST: Final = re.compile(r"(?P<method>GET|POST|PUT|PATCH|DELETE) (?P<path>(/([\w.~-]+|\*))*(/\*\*)?)")


@dataclass(frozen=True, slots=True)
class AllowedHost:
    """A host that may be called.

    Attributes:
        host: Name or address in lower case.
        port: ``None``: https on port 443 at public addresses only. A number: http or https on that port at
            any address, because an operator who names a port knows the machine.
    """

    host: str
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> "AllowedHost":
        """Read ``host`` or ``host:port``.

        Raises:
            ValueError: The text is neither.
        """
        found = _HOST.fullmatch(text.strip().lower())
        port = int(found["port"]) if found and found["port"] else None
        if found is None or port == 0 or (port or 0) > 65_535:  # noqa: PLR2004 - TCP's
            raise ValueError(f"{text!r} is not a host or host:port")
        return cls(found["host"].strip("[]"), port)

    @property
    def name(self) -> str:
        """The host as it is written in the settings."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}" if self.port else host


@dataclass(frozen=True, slots=True)
class CrmRequest:
    """Requests that workflows may send to the CRM.

    Attributes:
        method: GET (which includes HEAD), POST, PUT, PATCH or DELETE.
        path: Segments; ``*`` is any one, and ``**`` at the end any rest.
    """

    method: str
    path: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> "CrmRequest":
        """Read ``METHOD /path``.

        Raises:
            ValueError: The text is not of that form.
        """
        found = _CRM_REQUEST.fullmatch(text.strip())
        if found is None:
            raise ValueError(f"{text!r} is not a request; write METHOD /path, such as POST /messages")
        return cls(found["method"], tuple(found["path"].strip("/").split("/")))

    def matches(self, method: str, path: str) -> bool:
        """Return whether a request with a decoded path is one of them."""
        segments = path.strip("/").split("/")
        is_open = self.path[-1] == "**"
        wanted = self.path[:-1] if is_open else self.path
        return (
            self.method == ("GET" if method == "HEAD" else method)
            and (len(segments) >= len(wanted) if is_open else len(segments) == len(wanted))
            and all(one in ("*", segment) for one, segment in zip(wanted, segments, strict=False))
        )


class RunSettings(BaseSettings):
    """Limits of graph runs."""

    model_config = group_config("RUN_")

    max_concurrent: int = Field(100, ge=1, le=100_000, description="Most runs in progress at once")
    max_concurrent_per_tenant: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="Most of them for one tenant; unset: four fifths while authentication is on, else all",
    )
    queue_seconds: float = Field(
        10, ge=0, le=600, description="How long a run waits for a concurrency slot before 429"
    )
    queue_length: int = Field(
        1_000, ge=0, le=1_000_000, description="Most runs of one tenant that wait for a slot"
    )
    timeout_seconds: Seconds = Field(300, description="Time limit of one run")
    finish_seconds: float = Field(
        10, ge=0, le=3_600, description="How long runs have at shutdown to come to their end"
    )
    drain_seconds: Seconds = Field(
        20,
        description="How long those that have not come to it have to reach their next step, where they stop "
        "for another replica to go on",
    )
    claim_seconds: Annotated[float, Field(ge=1, le=3_600)] = Field(
        30, description="Another replica takes over the runs of one that was silent for this long"
    )
    keep_days: float = Field(
        30, gt=0, le=3_650, description="How long the rows of ended runs are kept; threads are kept apart"
    )


class QueueSettings(BaseSettings):
    """The task queue on Postgres: work that no request waits for."""

    model_config = group_config("QUEUE_")

    concurrency: int = Field(
        20,
        ge=0,
        le=1_000,
        description="Most jobs, and most runs that no caller waits for, that this process executes at once; "
        "0: none, because `make worker` runs elsewhere",
    )
    stalled_seconds: Annotated[float, Field(ge=1, le=3_600)] = Field(
        30, description="Another worker takes over the jobs of one that was silent for this long"
    )
    failed_days: float = Field(
        7, gt=0, le=3_650, description="How long jobs that have failed for good are kept for operators"
    )


class MessageSettings(BaseSettings):
    """How long a customer waits for the answer to a message."""

    model_config = group_config("MESSAGE_")

    deadline_seconds: Seconds = Field(
        30,
        description="Time from a message (POST /v1/messages) to its answer. What is not answered by then is "
        "handed over to a person",
    )
    reserve_seconds: Seconds = Field(
        5, description="Part of it that agents, models and memory leave for recording that hand-off"
    )

    @model_validator(mode="after")
    def _check_reserve(self) -> Self:
        if self.reserve_seconds >= self.deadline_seconds:
            raise ValueError("MESSAGE_RESERVE_SECONDS must be less than MESSAGE_DEADLINE_SECONDS")
        return self


class SessionSettings(BaseSettings):
    """Conversations of contacts on channels."""

    model_config = group_config("SESSION_")

    idle_seconds: Annotated[float, Field(gt=0, le=2_592_000)] = Field(
        1_800, description="A session without a message for this long is closed and summarised"
    )
    sweep_seconds: Seconds = Field(60, description="Pause between two searches for idle sessions")


class CrmSettings(BaseSettings):
    """The CRM that the tools call."""

    model_config = group_config("CRM_")

    api_base: str | None = Field(
        None, description="Address of the CRM, without /api/v1; unset: the development CRM at /crm"
    )
    api_key: ApiKey = Field(SecretStr("development-key"), description="Bearer key for the CRM")
    timeout_seconds: Seconds = Field(10, description="Time limit of one CRM request")
    message_timeout_seconds: Seconds = Field(15, description="Time limit of one request that sends a message")
    max_attempts: int = Field(
        3, ge=1, le=10, description="Attempts at a CRM request on 429, 5xx and missing answers"
    )
    rest_seconds: Seconds = Field(
        10, description="Pause without calls after the CRM was unavailable in three calls in a row"
    )

    articles_sync_seconds: float = Field(
        300,
        ge=0,
        le=86_400,
        description="Pause between two synchronisations of the help articles with the search index; 0: the "
        "CRM's own search finds articles",
    )

    @field_validator("api_base")
    @classmethod
    def _check_base(cls, base: str | None) -> str | None:
        return check_http_address(base) if base else None


class ApprovalSettings(BaseSettings):
    """Actions and answers that wait for a person's approval."""

    model_config = group_config("APPROVAL_")

    message_risk: Literal["low", "medium", "high", "never"] = Field(
        "high",
        description="Messages to customers with this risk or a higher one wait for a person; never: none do",
    )
    unsupported: Literal["allow", "review"] = Field(
        "allow",
        description="Answers with a number, date or amount that no source of the run holds. allow: they are "
        "sent and list it; review: they wait for a person, and no answer is streamed token by token",
    )


class WorkflowSettings(BaseSettings):
    """Limits of workflows, and what their steps may reach."""

    model_config = group_config("WORKFLOW_")

    allowed_hosts: str = Field(
        "",
        description="Comma-separated hosts that api_call steps may call: api.example.com (https at a public "
        "address) or a host with its port, localhost:8080 (at any address)",
    )
    crm_requests: str = Field(
        "GET /contacts/**, GET /messages, GET /engineering-tickets, GET /knowledge-base/**, GET /status, "
        "POST /messages, POST /contacts/*/follow-ups, PATCH /contacts/*/profile",
        description="Comma-separated requests that api_call steps may send to crm:/, with the CRM's key "
        "and for every caller with the scope runs: METHOD /path; * is one segment, ** at the end any rest",
    )
    secrets: SecretStr = Field(
        SecretStr("{}"),
        description="Header values that api_call steps refer to, each for one host, as JSON: "
        '{"api.example.com/token": "Bearer …"}',
    )
    connections: SecretStr = Field(
        SecretStr("{}"),
        description='Databases that database_query steps refer to, as JSON: {"reports": "postgresql://…"}; '
        "use a role that may only read: superusers and roles that may read files are refused. "
        "crm is the development CRM's, if the embedded Postgres serves it",
    )
    query_limit_bytes: int = Field(
        1_000_000,
        ge=1_000,
        le=10_000_000,
        description="Largest result of a database_query step, as JSON; results are part of checkpoints",
    )
    max_concurrent: int = Field(50, ge=1, le=10_000, description="Most workflows in progress at once")
    max_concurrent_steps: int = Field(
        100, ge=1, le=10_000, description="Most of their steps in progress at once, over all workflows"
    )
    scheduling: Literal["fifo", "priority", "fair_share"] = Field(
        "fair_share",
        description="Which waiting step is next: the oldest (fifo), that of the highest priority, or that of "
        "the workflow with the fewest steps in progress (fair_share)",
    )
    timeout_seconds: Seconds = Field(3_600, description="Time limit of a workflow between two waits")
    sweep_seconds: Seconds = Field(1, description="Pause between two searches for workflows that are due")

    @field_validator("allowed_hosts")
    @classmethod
    def _check_hosts(cls, hosts: str) -> str:
        parse_hosts(hosts)
        return hosts

    @field_validator("crm_requests")
    @classmethod
    def _check_crm_requests(cls, requests: str) -> str:
        _parse_crm_requests(requests)
        return requests

    @field_validator("secrets", "connections")
    @classmethod
    def _check_json(cls, texts: SecretStr) -> SecretStr:
        parse_text_map(texts)
        return texts

    @field_validator("connections")
    @classmethod
    def _check_connections(cls, connections: SecretStr) -> SecretStr:
        for name, url in parse_text_map(connections).items():
            if url.partition("://")[0] not in {"postgresql", "postgres"}:
                raise ValueError(f"{name}: must start with postgresql://")
        return connections

    @property
    def hosts(self) -> list[AllowedHost]:
        """The allowed hosts."""
        return parse_hosts(self.allowed_hosts)

    @property
    def allowed_crm_requests(self) -> list[CrmRequest]:
        """The requests that may be sent to the CRM."""
        return _parse_crm_requests(self.crm_requests)

    @property
    def secret_values(self) -> dict[str, str]:
        """The secrets by ``host/name``."""
        return parse_text_map(self.secrets)

    @property
    def connection_urls(self) -> dict[str, str]:
        """The databases' addresses by name."""
        return parse_text_map(self.connections)


def parse_hosts(hosts: str) -> list[AllowedHost]:
    """Read a comma-separated list of hosts.

    Raises:
        ValueError: One of them is no host.
    """
    return [AllowedHost.parse(host) for host in map(str.strip, hosts.split(",")) if host]


def _parse_crm_requests(requests: str) -> list[CrmRequest]:
    return [CrmRequest.parse(request) for request in map(str.strip, requests.split(",")) if request]
