"""Where the service listens, who may call it and how often, and what it logs and traces."""

import json
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode

from core.settings.base import LOOPBACK, Seconds, check_http_address, group_config

# Any number of requests.
NO_RATE: Final = "none"
# A rate in the words that the `limits` library parses.
Rate = Annotated[str, Field(pattern=r"^(none|[1-9][0-9]{0,8}/(second|minute|hour|day))$")]


class ServerSettings(BaseSettings):
    """Where the service listens and stores its data."""

    model_config = group_config("")

    host: str = Field("127.0.0.1", description="Address to listen on")
    port: int = Field(8000, ge=0, le=65_535, description="Port to listen on; 0 picks a free one")
    console: bool = Field(
        True,  # noqa: FBT003
        description="Whether `make serve` starts the console beside the service",
    )
    console_port: int = Field(8001, ge=1, le=65_535, description="Port of the console")
    console_python: Path | None = Field(
        None,
        description="Interpreter of the console's environment; `make serve` names it. Without one no console "
        "is started: `make console` runs it alone",
    )
    studio_port: int = Field(2024, ge=1, le=65_535, description="Port of `make studio-dev`")
    workers: int = Field(
        1,
        ge=1,
        le=64,
        description="Processes that serve the port, so that one machine uses its cores; they share the "
        "embedded Postgres, and each has its own connection pool and its own limits of concurrent runs",
    )
    shutdown_notice_seconds: float = Field(
        0,
        ge=0,
        le=300,
        description="How long /health/ready answers 503 at shutdown before connections are refused, so that "
        "load balancers notice; runs continue meanwhile",
    )
    data_dir: Path = Field(Path(".data"), description="Directory of the embedded Postgres")
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Comma-separated origins whose pages may call the service: https://crm.example; that of "
        "LangGraph Studio is https://smith.langchain.com",
    )

    @property
    def console_url(self) -> str:
        """Where the console is that is started beside the service; empty: none is started."""
        # Where the service picks a free port, the console could not be told it.
        if not (self.console and self.console_python and self.port):
            return ""
        return f"http://127.0.0.1:{self.console_port}"

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split_origins(cls, origins: Any) -> Any:
        if not isinstance(origins, str):
            return origins
        if origins.startswith("["):
            # The form that this setting had first.
            return json.loads(origins)
        return tuple(filter(None, map(str.strip, origins.split(","))))

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if check_http_address(origin) != origin or "/" in origin.partition("://")[2]:
                raise ValueError(f"{origin!r} is not an origin; write https://host or https://host:port")
        return origins


class AuthSettings(BaseSettings):
    """Authentication of callers."""

    model_config = group_config("AUTH_")

    api_keys: bool = Field(
        False,  # noqa: FBT003
        description="Require an API key (create one with `make keys`). To listen beyond this machine, set "
        "this or AUTH_JWT_JWKS_URL",
    )
    cache_seconds: float = Field(
        10,
        gt=0,
        le=600,
        description="How long a verified key or token is trusted before it is verified again; a revoked key "
        "stops working within this time",
    )
    jwt_jwks_url: str | None = Field(
        None, description="Address of a token issuer's JSON Web Key Set; its tokens are then accepted"
    )
    jwt_jwks_file: Path | None = Field(
        None, description="File with the JSON Web Key Set, instead of AUTH_JWT_JWKS_URL"
    )
    jwt_issuer: str | None = Field(
        None, description="Required value of a token's `iss` claim; must be set to accept tokens"
    )
    jwt_audience: str | None = Field(
        None, description="Required value of a token's `aud` claim; must be set to accept tokens"
    )
    jwt_leeway_seconds: float = Field(
        30, ge=0, le=600, description="How far the issuer's clock may differ from this machine's"
    )
    jwt_max_lifetime_seconds: float = Field(
        86_400,
        gt=0,
        le=31_536_000,
        description="Tokens that are valid for longer than this, from `iat` or from now, are refused: they "
        "could not be taken back",
    )
    jwt_tenant_claim: str = Field("tenant", description="Claim that names the tenant")
    jwt_user_claim: str = Field("sub", description="Claim that names the user")
    jwt_scopes_claim: str = Field(
        "scope", description="Claim that holds the scopes, as a space-separated text or a list"
    )
    jwt_jwks_timeout_seconds: Seconds = Field(5, description="Time limit for fetching the issuer's keys")
    jwt_jwks_refresh_seconds: Seconds = Field(300, description="How often the issuer's keys are refreshed")

    @property
    def enabled(self) -> bool:
        """Whether callers must authenticate."""
        return self.api_keys or self._accepts_tokens

    @property
    def _accepts_tokens(self) -> bool:
        return bool(self.jwt_jwks_url or self.jwt_jwks_file)

    @field_validator("jwt_jwks_url")
    @classmethod
    def _check_jwks_url(cls, url: str | None) -> str | None:
        if url and not url.startswith("https://") and urlsplit(url).hostname not in LOOPBACK:
            raise ValueError("must start with https://: otherwise the keys could be replaced on their way")
        return check_http_address(url) if url else None

    @model_validator(mode="after")
    def _check_token_settings(self) -> Self:
        if self.jwt_jwks_url and self.jwt_jwks_file:
            raise ValueError("AUTH_JWT_JWKS_URL and AUTH_JWT_JWKS_FILE are alternatives: set one of them")
        if self._accepts_tokens and not (self.jwt_issuer and self.jwt_audience):
            raise ValueError(
                "tokens need AUTH_JWT_ISSUER and AUTH_JWT_AUDIENCE: without them a token issued for another "
                "service would be accepted"
            )
        return self


class LimitSettings(BaseSettings):
    """Limits of requests; runs and models have their own."""

    model_config = group_config("")

    limit_requests: Rate = Field(
        "6000/minute",
        description="Requests per tenant, counted across all replicas while authentication is on: "
        "number/second, /minute, /hour or /day; none: unlimited",
    )
    limit_requests_per_tenant: dict[str, Rate] = Field(
        {}, description='Other rates for single tenants, as JSON: {"acme": "60000/minute"}'
    )
    limit_body_bytes: int = Field(
        1_048_576, ge=1_024, le=1_073_741_824, description="Largest request body in bytes"
    )
    limit_body_seconds: Seconds = Field(
        15, description="How long a request's body may take to arrive before 408"
    )
    limit_batch_inputs: int = Field(
        100,
        ge=1,
        le=10_000,
        description="Most inputs of one batch; each counts as a request against the tenant's rate",
    )
    limit_in_process: bool = Field(
        False,  # noqa: FBT003
        description="Count requests in each process separately; each replica then allows the whole rate",
    )
    limit_timeout_seconds: Seconds = Field(
        0.5,
        description="How long to wait for the shared count before a replica counts by itself",
    )


class LogSettings(BaseSettings):
    """What is logged, and in which format."""

    model_config = group_config("LOG_")

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Lowest level logged")
    format: Literal["auto", "json", "console"] = Field(
        "auto", description="json, console, or auto: console on a terminal, else JSON"
    )

    @field_validator("level", "format", mode="before")
    @classmethod
    def _lower_case(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value


class TracingSettings(BaseSettings):
    """Traces, configured by OpenTelemetry's own variables."""

    model_config = group_config("OTEL_")

    exporter_otlp_endpoint: str | None = Field(
        None, description="Address of an OTLP/HTTP collector, without /v1/traces; unset: no tracing"
    )
    exporter_otlp_headers: SecretStr | None = Field(
        None, description="Headers sent to the collector, as name=value,name=value, percent-encoded"
    )
    service_name: str = Field("ventros-agents", description="Name of the service in traces")
    traces_sampler_arg: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Share of traces that is recorded; a trace that a caller began follows the caller's "
        "decision",
    )

    @field_validator("exporter_otlp_endpoint")
    @classmethod
    def _check_endpoint(cls, base: str | None) -> str | None:
        return check_http_address(base) if base else None
