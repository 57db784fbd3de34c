"""The memory service, reranking, and how much context an agent is given."""

from pathlib import Path
from typing import Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings

from core.settings.base import ApiKey, Seconds, check_http_address, group_config


class MemorySettings(BaseSettings):
    """The memory service: how it is reached, how it is served, and how long its notes are kept."""

    model_config = group_config("MEMORY_")

    grpc_target: str | None = Field(
        None, description="host:port of a memory service; unset: the memory embedded in this service"
    )
    grpc_tls: bool = Field(False, description="Call the memory service over TLS")  # noqa: FBT003
    grpc_ca_file: Path | None = Field(
        None,
        description="PEM file of the authorities that sign the memory service's certificate, which turns TLS "
        "on; unset: the public ones",
    )
    grpc_token: ApiKey | None = Field(
        None, description="Bearer token of the memory service; `make memory-serve` requires it too"
    )
    grpc_timeout_seconds: Seconds = Field(
        3, description="Time limit of a call to the memory service, with all attempts and pauses"
    )
    grpc_forget_timeout_seconds: Seconds = Field(60, description="Time limit of a call that erases data")
    grpc_max_attempts: int = Field(
        3, ge=1, le=10, description="Attempts at a call while the memory service cannot be reached"
    )
    grpc_rest_seconds: Seconds = Field(
        5, description="Pause without calls after the memory service was unavailable twice in a row"
    )
    serve_host: str = Field("127.0.0.1", description="Address `make memory-serve` listens on")
    serve_port: int = Field(
        50051, ge=0, le=65_535, description="Port of `make memory-serve`; 0 picks a free one"
    )
    serve_cert_file: Path | None = Field(
        None, description="PEM file of the certificate of `make memory-serve`; unset: no TLS"
    )
    serve_key_file: Path | None = Field(None, description="PEM file of the key of MEMORY_SERVE_CERT_FILE")
    short_term_hours: float = Field(1, gt=0, le=8_760, description="How long short-term notes are kept")
    working_hours: float = Field(24, gt=0, le=8_760, description="How long working notes are kept")
    long_term_days: float = Field(30, gt=0, le=3_650, description="How long long-term notes are kept")
    shared_days: float = Field(7, gt=0, le=3_650, description="How long notes shared by all agents are kept")
    capacity: int = Field(
        1_000,
        ge=1,
        le=100_000,
        description="Most notes of each type per contact; one more trims them to MEMORY_KEPT_WHEN_FULL",
    )
    kept_when_full: int = Field(
        800, ge=0, le=99_999, description="Notes that trimming keeps, the most used ones"
    )
    sweep_seconds: Seconds = Field(60, description="Pause between two deletions of expired notes")

    @field_validator("grpc_target")
    @classmethod
    def _check_target(cls, target: str | None) -> str | None:
        if target and (":" not in target or target.startswith(("http://", "https://"))):
            raise ValueError("must be host:port, or another gRPC target: dns:///host:port or unix:/path")
        return target

    @model_validator(mode="after")
    def _check_capacity(self) -> Self:
        if self.kept_when_full >= self.capacity:
            raise ValueError("MEMORY_KEPT_WHEN_FULL must be less than MEMORY_CAPACITY")
        return self


class RerankSettings(BaseSettings):
    """Reranking of memory's search results, if FEATURE_RERANKING is on."""

    model_config = group_config("RERANK_")

    api_key: ApiKey | None = Field(
        None, description="Key of Jina's rerank API; unset: results are reranked on this machine"
    )
    base_url: str = Field("https://api.jina.ai", description="Address of the rerank API, without /v1/rerank")
    model: str = Field("jina-reranker-v2-base-multilingual", description="Model of the rerank API")
    timeout_seconds: Seconds = Field(
        2, description="Time limit of one reranking; after that the fused order is kept"
    )

    @field_validator("base_url")
    @classmethod
    def _check_base_url(cls, base: str) -> str:
        return check_http_address(base)


class ContextSettings(BaseSettings):
    """What agents are given beside their task."""

    model_config = group_config("CONTEXT_")

    tokens: int = Field(
        6_000,
        ge=500,
        le=100_000,
        description="Most tokens of profile, conversation and memory in an agent's prompt",
    )
