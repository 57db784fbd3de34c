"""Logs and traces."""

from typing import Any, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings

from core.settings.base import check_http_address, group_config


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
