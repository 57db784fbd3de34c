"""Runs and sessions, the CRM they talk to, and what waits for a person's approval."""

from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings

from core.settings.base import ApiKey, Seconds, check_http_address, group_config


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
    drain_seconds: Seconds = Field(
        20, description="How long runs have at shutdown to reach their next step, where they stop"
    )


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

    @field_validator("api_base")
    @classmethod
    def _check_base(cls, base: str | None) -> str | None:
        return check_http_address(base) if base else None


class ApprovalSettings(BaseSettings):
    """Actions that wait for a person's approval."""

    model_config = group_config("APPROVAL_")

    message_risk: Literal["low", "medium", "high", "never"] = Field(
        "high",
        description="Messages to customers with this risk or a higher one wait for a person; never: none do",
    )
