"""Postgres and Redis, the cache of results, and how long stored data is kept."""

from typing import Annotated, Final, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings

from core.settings.base import Seconds, group_config

CacheBackend = Literal["auto", "memory", "redis", "off"]

# keep_all, keep_latest or keep_last:N, and how long after its last step a thread is deleted as a whole.
_KEEP: Final = r"keep_all|keep_latest|keep_last:[1-9][0-9]{0,5}"
_DELETE: Final = r"delete_after:[1-9][0-9]{0,5}[mhd]"
RetentionPolicy = Annotated[str, Field(pattern=rf"^({_KEEP}|{_DELETE}|({_KEEP}),{_DELETE})$")]


class DatabaseSettings(BaseSettings):
    """Postgres, the only database the service needs."""

    model_config = group_config("DATABASE_")

    url: SecretStr | None = Field(
        None, description="postgresql:// address of an external server; unset: the embedded Postgres"
    )
    pool_min_size: int = Field(2, ge=0, le=1_000, description="Connections kept open")
    pool_max_size: int = Field(16, ge=1, le=1_000, description="Most connections open at once")
    connect_timeout_seconds: Seconds = Field(
        10, description="Time limit for connecting, and for getting a connection from the pool"
    )
    prepared_statements: bool = Field(
        True,  # noqa: FBT003
        description="Use prepared statements; set to false behind a transaction-mode pooler without them",
    )

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: SecretStr | None) -> SecretStr | None:
        if not url:
            return None
        scheme, _, address = url.get_secret_value().partition("://")
        if scheme not in {"postgresql", "postgres"}:
            raise ValueError("must start with postgresql://")
        server, _, database = address.partition("/")
        if "@" in database.partition("?")[0] and "@" not in server:
            # The driver would take the start of the password for a port, and print it in its error.
            raise ValueError("has a / in its user or password: write it as %2F")
        return url


class RedisSettings(BaseSettings):
    """Redis, which is optional."""

    model_config = group_config("REDIS_")

    url: SecretStr | None = Field(
        None,
        description="redis://, rediss:// or unix:// address of a Redis that the replicas share; unset: none",
    )

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: SecretStr | None) -> SecretStr | None:
        if not url:
            return None
        if url.get_secret_value().partition("://")[0] not in {"redis", "rediss", "unix"}:
            raise ValueError("must start with redis://, rediss:// or unix://")
        return url


class CacheSettings(BaseSettings):
    """The cache of steps whose result depends on their input alone."""

    model_config = group_config("CACHE_")

    backend: CacheBackend = Field(
        "auto",
        description="Where the results of steps without effects (routing) are cached: memory, redis, off; "
        "auto: Redis with REDIS_URL, else this process's memory",
    )
    ttl_seconds: int = Field(300, ge=1, le=86_400, description="How long a cached result may be reused")


class RetentionSettings(BaseSettings):
    """How long conversation threads are kept."""

    model_config = group_config("RETENTION_")

    policy: RetentionPolicy = Field(
        "keep_all",
        description="What is kept of a thread: keep_all, keep_latest, keep_last:20, delete_after:90d (since "
        "its last step; m, h or d), or two of them: keep_last:20,delete_after:90d",
    )
    per_graph: dict[str, RetentionPolicy] = Field(
        {}, description='Other policies for single graphs, as JSON: {"react": "keep_last:20"}'
    )
    interval_seconds: Seconds = Field(3600, description="Time from one sweep to the next")
    grace_seconds: Seconds = Field(
        900, description="Threads with a newer step are not touched; set it above RUN_TIMEOUT_SECONDS"
    )
    batch_size: int = Field(100, ge=1, le=10_000, description="Threads examined per query")
    dry_run: bool = Field(False, description="Only log what would be deleted")  # noqa: FBT003


class AuditSettings(BaseSettings):
    """The audit trail."""

    model_config = group_config("AUDIT_")

    retention_days: float | None = Field(
        None,
        gt=0,
        le=36_500,
        description="How long audit entries are kept; unset: forever. A seal replaces the deleted part",
    )


class IdempotencySettings(BaseSettings):
    """Requests that are sent twice."""

    model_config = group_config("IDEMPOTENCY_")

    key_hours: float = Field(
        24, gt=0, le=8_760, description="How long an Idempotency-Key and its request are remembered"
    )
